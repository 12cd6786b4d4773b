"""Whether anything is missing or doubled after `lam encode` was killed at random times, and started again.

`python benchmarks/killed.py DATA/train/text.parquet -o results/killed.json`: each time, the command or one of its
workers is killed (SIGKILL) some seconds after its start, until it ends by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset
import pyarrow.parquet

from lam_model.evaluation.provenance import provenance
from lam_model.files import write_json


def workers_of(pid: int) -> list[int]:
    """The processes below one, from /proc; without the one that only keeps account of Python's resources."""
    parents: dict[int, int] = {}
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            parents[int(name)] = int(Path("/proc", name, "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, todo = [], [pid]
    while todo:
        below = [child for child, parent in parents.items() if parent == todo[-1]]
        todo.pop()
        found += below
        todo += below
    return [child for child in found if b"resource_tracker" not in _command(child)]


def _command(pid: int) -> bytes:
    try:
        return Path("/proc", str(pid), "cmdline").read_bytes()
    except OSError:
        return b""


def run_until_done(command: list[str], rng: random.Random, seconds: float, kills: int) -> dict[str, int]:
    """Start a command again and again, and kill it or one of its workers each time, so many times."""
    killed = {"driver": 0, "worker": 0}
    while True:
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        if sum(killed.values()) < kills:
            try:
                process.wait(rng.uniform(1, seconds))
            except subprocess.TimeoutExpired:
                workers = workers_of(process.pid)
                whom = "worker" if workers and rng.random() < 0.5 else "driver"
                os.kill(rng.choice(workers) if whom == "worker" else process.pid, signal.SIGKILL)
                killed[whom] += 1
        code = process.wait()
        if code == 0:
            return killed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("texts", type=Path, help="a parquet file with a column `text`")
    parser.add_argument("--count", type=int, default=40_000, help="texts (default: 40,000)")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=20, help="the longest time before a kill (default: 20)")
    parser.add_argument("--engine", default="processes")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    args.output.parent.mkdir(parents=True, exist_ok=True)
    texts = pyarrow.parquet.read_table(args.texts, columns=["text"])["text"].to_pylist()
    texts = random.Random(0).sample(texts, args.count)
    with tempfile.TemporaryDirectory() as temporary:
        corpus, out = Path(temporary, "texts.jsonl"), Path(temporary, "out")
        corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
        lam = [str(Path(sys.executable).with_name("lam")), "encode", "--file", str(corpus), "--dtype", "int8", "-o"]
        start = time.perf_counter()
        killed = run_until_done([*lam, str(out), "--engine", args.engine], random.Random(1), args.seconds, args.kills)
        seconds = time.perf_counter() - start
        rows = pyarrow.dataset.dataset(out).to_table()
        ids = [int(name) for name in rows["id"].to_pylist()]
        vectors = np.stack(rows["embedding"].combine_chunks().flatten().to_numpy().reshape(len(ids), -1))
        found: dict[str, Any] = {
            "kills": killed,
            "missing": len(set(range(args.count)) - set(ids)),
            "doubled": len(ids) - len(set(ids)),
            "not_finite": int((~np.isfinite(vectors)).any(1).sum()),
            "files_left_over": sorted(one.name for one in out.iterdir() if one.name.startswith(".lam-")),
            "seconds": round(seconds, 1),
        }
        shutil.rmtree(out)
    about = {"texts": args.count, "engine": args.engine, "seed": 1}
    before = json.loads(args.output.read_text()) if args.output.exists() else {}
    source = provenance(shlex.join(["python", *sys.argv]), [args.texts])
    write_json(args.output, before | {args.engine: source | about | found})


if __name__ == "__main__":
    main()
