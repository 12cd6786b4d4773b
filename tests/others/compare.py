"""Vectors that another runtime has found, beside torch's as `expected.py` wrote them. It needs numpy only."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

TOLERANCE = 1e-5  # largest difference of a number of a unit vector
LEAST_COSINE = 0.99  # of a quantized graph's vectors, in the mean


def read(path: str) -> tuple[list[str], list[int], np.ndarray]:
    """The texts, their numbers of tokens, and torch's vectors (texts, dimension)."""
    expected = json.loads(Path(path).read_text(encoding="utf-8"))
    texts, tokens, vectors = ([one[key] for one in expected] for key in ("text", "tokens", "vector"))
    return texts, tokens, np.array(vectors)


def compare(what: str, found: np.ndarray, expected: np.ndarray) -> None:
    """Print how far the vectors differ; the process ends in an error if that is too far.

    Args:
        what: the runtime and graph; one with "quantized" in its name is allowed `LEAST_COSINE`.
        found, expected: (texts, dimension), unit vectors.
    """
    difference = np.abs(found - expected).max()
    cosine = (found * expected).sum(axis=1)
    right = cosine.mean() >= LEAST_COSINE if "quantized" in what else difference <= TOLERANCE  # a NaN is not
    line = f"{what}: {len(found)} texts, largest difference {difference:.1e}, cosine {cosine.mean():.4f}"
    line += f" in the mean, {cosine.min():.4f} at least"
    if not right:
        sys.exit(f"{line}: WRONG")
    sys.stdout.write(f"{line}\n")
