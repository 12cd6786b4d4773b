"""What a script compares with: texts and their vectors, as `tests/others/expected.py` wrote them. It needs numpy."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

TOLERANCE = 1e-5  # largest difference of a number of a unit vector

_expected = json.loads(Path("expected.json").read_text(encoding="utf-8"))
TEXTS: list[str] = [one["text"] for one in _expected]  # the last one has 2,000 tokens
VECTORS = np.array([one["vector"] for one in _expected])


def check(vectors, way: str) -> None:
    """Compare a tool's vectors of `TEXTS` with the golden ones, and print a line that `run.py` reads.

    Args:
        vectors: one for each text, of any length: they are normalised here.
        way: how the tool has loaded LAM, the line of code that the docs show.
    """
    found = np.array([np.asarray(vector, dtype=np.float64) for vector in vectors])
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    difference = np.abs(found - VECTORS).max(axis=1)
    figures = {"way": way, "short": difference[:-1].max(), "long": difference[-1]}
    sys.stdout.write(f"{json.dumps(figures)}\n")
    if not max(difference) <= TOLERANCE:  # a NaN is not
        sys.exit(f"{way}: text {difference.argmax()} differs by {difference.max():.1e}")
