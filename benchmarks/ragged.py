"""Texts of all lengths in one batch: time and memory against those of each length alone.

`python benchmarks/ragged.py -o results/ragged.json`; `python results/tables.py` draws the plot.
"""

from __future__ import annotations

import argparse
import json
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

import lam_model
from lam_model.evaluation.provenance import provenance
from lam_model.files import write_json
from lam_model.folder.base import sha256
from lam_model.folder.build import PACKAGED_WEIGHTS
from lam_model.runtime.cache import cached

READERS = ("encode", "encode_passages", "SentenceTransformer", "onnx")
MIXTURES = {  # words of each text
    "one of 5,000, 31 of 2": [5000, *[2] * 31],
    "one of 15,000, 31 of 2": [15_000, *[2] * 31],
    "2, 4, 8, ... 4,096": [2**i for i in range(1, 13)],
    "32 from 2 to 1,000": np.linspace(2, 1000, 32).astype(int).tolist(),
}
TURNS = 3  # of which the fastest counts
BATCHES = (300, 3000)  # of mixed lengths, after which memory is compared


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--reader", choices=READERS, help="measure one, in this process")
    parser.add_argument("--mixture", choices=MIXTURES, help="its memory; without it, that of many batches")
    parser.add_argument("--alone", action="store_true", help="only the mixture's longest text")
    arguments = parser.parse_args()
    if arguments.reader:
        print(json.dumps(measure(arguments.reader, arguments.mixture, arguments.alone)))  # noqa: T201
        return
    rows = []
    for reader in READERS:
        for mixture in MIXTURES:
            alone = in_its_own_process(reader, "--mixture", mixture, "--alone")
            row = in_its_own_process(reader, "--mixture", mixture)
            rows.append({**row, "megabytes_of_the_longest": alone["megabytes"]})
    batches = [in_its_own_process(reader) for reader in ("encode", "onnx")]
    result = {
        "deltanet_sha256": sha256(PACKAGED_WEIGHTS),
        "mixtures": rows,
        "many_batches": batches,
        **provenance(shlex.join(["python", *sys.argv])),
    }
    write_json(arguments.output, result)


def in_its_own_process(reader: str, *more: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--reader", reader, *more]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(reader: str, mixture: str | None, alone: bool) -> dict[str, Any]:
    read = reading(reader)
    if mixture is None:
        return {"reader": reader, **many_batches(read)}
    lengths = sorted(MIXTURES[mixture], reverse=True)
    read([text(lengths[0])])  # the first call is slower
    read([text(2)])
    if alone:
        return {"megabytes": peak()}
    read(list(map(text, lengths)))
    row = {"reader": reader, "mixture": mixture, "megabytes": peak()}
    own, together = [], []
    for _ in range(TURNS):
        together.append(seconds(read, lengths))
        own.append(sum(seconds(read, [n] * lengths.count(n)) for n in sorted(set(lengths))))
    return {**row, "seconds": round(min(together), 3), "seconds_apart": round(min(own), 3)}


def reading(reader: str) -> Callable[[list[str]], Any]:
    if reader == "SentenceTransformer":
        return SentenceTransformer(str(cached()[0]), device="cpu").encode
    if reader == "onnx":
        return lam_model.OnnxEncoder().encode
    model = lam_model.load(device="cpu")
    if reader == "encode":
        return model.encode
    return lambda texts: model.encode_passages(texts, batch_size=32)


def text(words: int) -> str:
    return " ".join(["river", "stone", "light"][i % 3] for i in range(words))


def seconds(read: Callable[[list[str]], Any], lengths: list[int]) -> float:
    begun = time.perf_counter()
    read(list(map(text, lengths)))
    return time.perf_counter() - begun


def peak() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def many_batches(read: Callable[[list[str]], Any]) -> dict[str, Any]:
    draw, resident = np.random.default_rng(0), {}
    for number in range(1, BATCHES[1] + 1):
        read([text(n) for n in draw.geometric(1 / 40, size=8)])
        if number in BATCHES:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            resident[f"megabytes_after_{number}"] = round(pages * resource.getpagesize() / 2**20, 1)
    return resident


if __name__ == "__main__":
    main()
