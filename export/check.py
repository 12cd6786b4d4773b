"""Every exported graph beside the torch model that it was made from, on real texts of all lengths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx

import lam_model

BASE_ONLY = "_base"  # in the name of a graph that skips the DeltaNet layers
TEXTS = 200
TOLERANCE = 1e-4  # largest difference of a number of a unit vector
# V Strøm, C Røe, S Knardahl: Coffee intake and development of pain during computer work. BMC Research Notes 5:480
# (2012), doi:10.1186/1756-0500-5-480, CC BY; without abstract, headings, figures, tables and references.
_ARTICLE = Path(__file__).parent / "article.txt"


def verify(folder: Path) -> list[dict[str, Any]]:
    """Compare every graph in `folder`/onnx with the model of the folder, texts over one block included.

    Returns:
        Of every graph: file, bytes, texts, largest difference, and mean and least cosine to torch's vectors.

    Raises:
        FileNotFoundError: there is no graph.
        ValueError: naming the graph that is no valid ONNX, or whose vectors differ by more than `TOLERANCE`.
    """
    graphs = sorted((folder / "onnx").glob("*.onnx"))
    if not graphs:
        raise FileNotFoundError(f"{folder / 'onnx'} has no graphs: write them with `lam export onnx {folder}`")
    sample = texts()
    expected: dict[bool, np.ndarray] = {}
    figures = []
    for graph in graphs:
        base_only = BASE_ONLY in graph.stem
        if base_only not in expected:
            expected[base_only] = lam_model.load(folder, device="cpu", base_only=base_only).encode(sample)
        figures.append(compare(folder, graph, sample, expected[base_only]))
    return figures


def compare(folder: Path, graph: Path, sample: list[str], expected: np.ndarray) -> dict[str, Any]:
    """Check one graph, as `verify` does."""
    try:
        onnx.checker.check_model(onnx.load(graph), full_check=False)
    except onnx.checker.ValidationError as error:
        raise ValueError(f"{graph} is no valid ONNX ({error}): export it again") from error
    vectors = lam_model.OnnxEncoder(folder, graph.relative_to(folder).as_posix()).encode(sample)
    difference = float(np.abs(vectors - expected).max())
    cosine = (vectors * expected).sum(axis=1)
    if not difference <= TOLERANCE:  # a NaN fails too
        raise ValueError(f"{graph} differs from torch by {difference:.1e}, over {TOLERANCE}: export it again")
    return {
        "file": graph.name,
        "bytes": graph.stat().st_size,
        "texts": len(sample),
        "largest_difference": difference,
        "cosine": float(cosine.mean()),
        "least_cosine": float(cosine.min()),
    }


def texts() -> list[str]:
    """Stretches of an article from everywhere in it, of one word up to all of its 1,500 or so."""
    words = _ARTICLE.read_text(encoding="utf-8").split()
    lengths = np.geomspace(1, len(words), TEXTS).astype(int)
    starts = [(i * 37) % (len(words) - length + 1) for i, length in enumerate(lengths)]
    return [" ".join(words[start : start + length]) for start, length in zip(starts, lengths, strict=True)]
