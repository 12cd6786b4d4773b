"""Time and peak memory of one text against its length: LAM at once and as a stream, MiniLM with nothing cut off.

`python benchmarks/lengths.py -o results/lengths.json`; `python results/tables.py` draws the plot.

MiniLM has positions for 512 tokens: all further ones get the last, so that its softmax reads the whole text. What its
vectors are worth there is not the question here.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from transformers import AutoModel, AutoTokenizer

import lam_model
from lam_model.evaluation.provenance import provenance
from lam_model.files import write_json
from lam_model.folder.base import find_base, sha256
from lam_model.folder.build import PACKAGED_WEIGHTS

LENGTHS = tuple(32 << i for i in range(13))  # tokens: 32 to 131,072
SECONDS = 2.0  # of repeats, for each length and way of reading
MOST_SECONDS = 60.0  # a text that would take MiniLM longer is not read by it
LAM, STREAM, MINILM = "LAM", "LAM, stream", "MiniLM"

Read = Callable[[torch.Tensor], np.ndarray]  # token ids (length,) to the text's vector


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    output = parser.parse_args().output
    readers = {name: reader(name) for name in (LAM, STREAM, MINILM)}
    check(readers)
    measured: dict[str, Any] = {name: {} for name in readers}
    for length in tqdm(LENGTHS, unit="length"):
        # Reading alone is quadratic in the end: four times for twice the length.
        before = measured[MINILM].get(str(length // 2))
        slow = length > LENGTHS[0] and (before is None or 4 * before["seconds"] > MOST_SECONDS)
        names = [name for name in readers if name != MINILM or not slow]
        for name, seconds in in_turn({name: readers[name] for name in names}, length).items():
            measured[name][str(length)] = {"seconds": seconds, "peak_mb": peak_memory(name, length)}
    result = {
        "deltanet_sha256": sha256(PACKAGED_WEIGHTS),
        "threads": torch.get_num_threads(),
        "lengths": measured,
        **provenance(shlex.join(["python", *sys.argv])),
    }
    write_json(output, result)


def reader(name: str) -> Read:
    """What reads a text of that many tokens at once, or as a stream."""
    if name == MINILM:
        bert = AutoModel.from_pretrained(find_base(), dtype=torch.float32).eval()

        def read_by_minilm(ids: torch.Tensor) -> np.ndarray:
            positions = torch.arange(len(ids)).clamp(max=bert.config.max_position_embeddings - 1)
            with torch.inference_mode():
                hidden = bert(input_ids=ids[None], position_ids=positions[None]).last_hidden_state
            return torch.nn.functional.normalize(hidden[0].mean(0), dim=0).numpy()

        return read_by_minilm
    model = lam_model.load(device="cpu")
    if name == LAM:

        def read_at_once(ids: torch.Tensor) -> np.ndarray:
            return model.encode(model.tokenizer.decode(ids[1:-1]))

        return read_at_once

    def read_as_a_stream(ids: torch.Tensor) -> np.ndarray:
        stream = lam_model.Stream(model)
        stream.feed_tokens(ids[1:-1].tolist())  # it adds [CLS] and [SEP]
        return stream.vector()

    return read_as_a_stream


def random_text(length: int) -> torch.Tensor:
    """Token ids of words that are one token each: their text has the same again."""
    tokenizer = AutoTokenizer.from_pretrained(find_base())
    words = torch.tensor(sorted(i for word, i in tokenizer.vocab.items() if word.isascii() and word.isalpha()))
    chosen = torch.randint(len(words), (length - 2,), generator=torch.Generator().manual_seed(length))
    return torch.cat([torch.tensor([101]), words[chosen], torch.tensor([102])])


def check(readers: dict[str, Read]) -> None:
    """Refuse to measure a wrong vector: the stream's is LAM's, and LAM's is near MiniLM's where nothing was cut."""
    for length in (32, 500, 1100):
        ids = random_text(length)
        np.testing.assert_allclose(readers[LAM](ids), readers[STREAM](ids), atol=1e-5)
    ids = random_text(64)
    if (cosine := float(readers[LAM](ids) @ readers[MINILM](ids))) < 0.9:
        raise SystemExit(f"LAM's vector has a cosine of {cosine:.3f} to MiniLM's: nothing was measured")


def in_turn(readers: dict[str, Read], length: int) -> dict[str, float]:
    """The median time of each, one after the other and again."""
    ids = random_text(length)
    times: dict[str, list[float]] = {name: [] for name in readers}
    until = time.perf_counter() + SECONDS * len(readers)
    if length <= 512:
        for read in readers.values():
            read(ids)  # the first call is slower: of a short text much
    while not times[LAM] or time.perf_counter() < until:
        for name, read in readers.items():
            begun = time.perf_counter()
            read(ids)
            times[name].append(time.perf_counter() - begun)
    return {name: round(statistics.median(taken), 5) for name, taken in times.items()}


def peak_memory(name: str, length: int) -> float:
    """In MB, of a process that does nothing else (on Linux)."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_memory, (name, length))


def _peak_memory(name: str, length: int) -> float:
    reader(name)(random_text(length))
    # Not `ru_maxrss`, which a process takes over from the one that started it.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return round(int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024, 1)


if __name__ == "__main__":
    main()
