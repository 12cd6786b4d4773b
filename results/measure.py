"""Measure all figures of the packaged weights anew: `python results/measure.py --data DATA`, or `make results`.

`FIGURES` says which command writes which file. A file that was measured with the packaged weights is left as it is.
What was interrupted is measured again; `lam eval` goes on where it was. Commit new weights before: benchmarks/mixed.py
reads them from the repository's history.
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from lam_model.folder.base import sha256
from lam_model.folder.build import PACKAGED_WEIGHTS

RESULTS = Path(__file__).resolve().parent
ROOT = RESULTS.parent


class Figures(NamedTuple):
    """A file of figures.

    Args:
        file: its name in results/.
        command: what writes it, from the repository's root; DATA stands for the folder of training data and tasks.
        minutes: how long that takes on two cores.
    """

    file: str
    command: str
    minutes: int


# How long a command took was not recorded so far. Minutes are reckoned from the times within bench.json and
# lengths.json; all others are guesses from the speeds there and the sizes of the data.
FIGURES = (
    Figures(
        "compare.json",
        "lam compare --held-out DATA/train/text.parquet DATA/train/pairs.parquet DATA/train/long.parquet "
        "DATA/train/genres.parquet --guard DATA/eval_exclude_normalised.txt.xz -o results/compare.json",
        3,
    ),
    Figures(
        "eval.json",
        "lam eval STSBenchmark STS12 STS16 SICK-R SciFact --folder DATA/mteb-tasks -o results/eval.json",
        15,
    ),
    Figures("dims.json", "python benchmarks/dims.py --folder DATA/mteb-tasks -o results/dims.json", 10),
    Figures(
        "mixed.json",
        "python benchmarks/mixed.py DATA/mteb-tasks/mteb/scifact DATA/train/pairs.parquet -o results/mixed.json",
        10,
    ),
    Figures(
        "long.json",
        "lam eval long --articles DATA/train/long.parquet --folder DATA/mteb-tasks --dtype bfloat16 "
        "-o results/long.json",
        60,
    ),
    Figures(
        "context.json",
        "lam eval context DATA/context/fairytale-val DATA/context/qmsum-val --articles DATA/train/long.parquet "
        "-o results/context.json",
        25,
    ),
    Figures(
        "context-sizes.json",
        "lam eval context DATA/context/fairytale-val --sizes 32 64 128 256 -o results/context-sizes.json",
        10,
    ),
    Figures(
        "state.json",
        "python benchmarks/state.py DATA/context/fairytale-val --articles DATA/train/long.parquet "
        "-o results/state.json",
        6,
    ),
    Figures("carried.json", "python benchmarks/carried.py -o results/carried.json", 15),
    Figures("lengths.json", "python benchmarks/lengths.py -o results/lengths.json", 8),
    Figures("ragged.json", "python benchmarks/ragged.py -o results/ragged.json", 15),
    Figures("bench.json", "python benchmarks/bench.py -o results/bench.json", 22),
    Figures("onnx.json", "python benchmarks/onnx_graphs.py --folder DATA/mteb-tasks -o results/onnx.json", 20),
)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"), help="the folder of training data and tasks")
    parser.add_argument("--dry-run", action="store_true", help="only print what would be measured")
    args = parser.parse_args(argv)
    weights = sha256(PACKAGED_WEIGHTS)
    stale = [one for one in FIGURES if not is_up_to_date(one.file, weights)]
    print("up to date:", ", ".join(one.file for one in FIGURES if one not in stale) or "nothing")
    print(f"to measure: {len(stale)} files, {sum(one.minutes for one in stale)} minutes on two cores")
    for one in stale:
        print(f"{one.minutes:5} min  {one.command}")
    if args.dry_run:
        return
    if not args.data.is_dir():
        parser.error(f"{args.data} is not a folder: name that of the training data and tasks, --data DATA")
    with linked(args.data):
        for one in stale:
            measure(one)
    subprocess.run([sys.executable, "results/tables.py"], cwd=ROOT, check=True)


def is_up_to_date(file: str, weights: str) -> bool:
    """Whether a file is there, whole, and of the weights of such a sha256."""
    path = RESULTS / file
    if not path.is_file() or unfinished(file).exists():
        return False
    return json.loads(path.read_text(encoding="utf-8")).get("deltanet_sha256") == weights


def unfinished(file: str) -> Path:
    """What lies beside a file while it is measured: some commands write all that they have so far."""
    return RESULTS / f"{file}.unfinished"


@contextmanager
def linked(data: Path) -> Iterator[None]:
    """DATA is a link to the data while commands run: a file records its command, which names no machine's path so."""
    link = ROOT / "DATA"
    if link.exists() and link.samefile(data):
        yield
        return
    link.symlink_to(data.resolve(), target_is_directory=True)
    try:
        yield
    finally:
        link.unlink()


def measure(one: Figures) -> None:
    """Run a command.

    Raises:
        SystemExit: it failed.
    """
    print(f"{one.file}: about {one.minutes} minutes", flush=True)
    begun = time.monotonic()
    unfinished(one.file).touch()
    program, *arguments = shlex.split(one.command)
    how = ["-m", "lam_model.cli"] if program == "lam" else []
    if subprocess.run([sys.executable, *how, *arguments], cwd=ROOT).returncode:
        raise SystemExit(f"{one.file} was not measured, for this failed: {one.command}")
    unfinished(one.file).unlink()
    print(f"{one.file}: took {(time.monotonic() - begun) / 60:.0f} minutes", flush=True)


if __name__ == "__main__":
    main()
