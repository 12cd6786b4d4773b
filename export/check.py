"""Every exported graph beside the torch model that it was made from, on real texts of all lengths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from tokenizers import Tokenizer

import lam_model
from lam_model.folder.manifest import GOLDEN_TEXTS, ONNX, check_files
from lam_model.progress import progress
from lam_model.reading.tokenizing import unlimited

TEXTS = 200
TOLERANCE = 1e-4  # largest difference of a number of a unit vector
INT8_COSINE = 0.99  # least mean cosine of a quantized graph's vectors
BATCH = 8  # texts that a graph of whole texts is given together, of different lengths
# V Strøm, C Røe, S Knardahl: Coffee intake and development of pain during computer work. BMC Research Notes 5:480
# (2012), doi:10.1186/1756-0500-5-480, CC BY; without abstract, headings, figures, tables and references.
_TITLE = "Coffee intake and development of pain during computer work"
_ARTICLE = Path(__file__).parent / "article.txt"


def verify(folder: Path) -> list[dict[str, Any]]:
    """Compare every graph in `folder`/onnx with the model of the folder, texts over one block included.

    Graphs that read block by block are compared on the passages of a document too.

    Returns:
        Of every graph: file, bytes, texts, largest difference, and mean and least cosine to torch's vectors.

    Raises:
        FileNotFoundError: there is no graph.
        ValueError: naming the graph that is altered, no valid ONNX, or not what torch computes: a number differs by
            more than `TOLERANCE`, or the mean cosine of an int8 graph is below `INT8_COSINE`.
    """
    graphs = sorted((folder / ONNX).glob("*.onnx"))
    if not graphs:
        raise FileNotFoundError(f"{folder / ONNX} has no graphs: write them with `lam export onnx {folder}`")
    sample = texts()
    expected: dict[bool, np.ndarray] = {}
    figures = []
    for graph in progress(graphs, unit="graph"):
        base_only = "_base" in graph.stem
        if base_only not in expected:
            expected[base_only] = read(lam_model.load(folder, device="cpu", base_only=base_only), sample)
        figures.append(compare(folder, graph, sample, expected[base_only]))
    return figures


def compare(
    folder: Path, graph: Path, sample: list[str], expected: np.ndarray, written: Path | None = None
) -> dict[str, Any]:
    """Check one graph, as `verify` does.

    Args:
        expected: as from `read`, of the model that the graph was made from.
        written: where the graph lies until it has been found right.
    """
    path = written or graph
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=False)
    except onnx.checker.ValidationError as error:
        raise ValueError(f"{graph} is no valid ONNX ({error}): export it again") from error
    if written is None:
        check_files(folder, [graph.relative_to(folder).as_posix()])
    if any(value.name.startswith("present_") for value in model.graph.output):
        vectors = pooled = read(lam_model.OnnxEncoder(folder, str(path.absolute()), checked=False), sample)
    else:
        vectors, pooled = _read_whole(folder, path, sample)
        expected = expected[: len(sample)]
    difference = float(max(np.abs(vectors - expected).max(), np.abs(pooled - expected).max()))
    cosine = (vectors * expected).sum(axis=1)
    if graph.stem.endswith(("_quantized", "_int8")):  # the latter is what it was called before
        if not cosine.mean() >= INT8_COSINE:  # a NaN fails too
            raise ValueError(f"{graph} has a cosine of {cosine.mean():.4f} to torch, under {INT8_COSINE}")
    elif not difference <= TOLERANCE:
        raise ValueError(f"{graph} differs from torch by {difference:.1e}, over {TOLERANCE}: export it again")
    return {
        "file": graph.name,
        "bytes": path.stat().st_size,
        "texts": len(sample),
        "largest_difference": difference,
        "cosine": float(cosine.mean()),
        "least_cosine": float(cosine.min()),
    }


def read(model: Any, sample: list[str]) -> np.ndarray:
    """Of the texts, then of the passages of an article that knows its title."""
    article = model.encode_passages(_ARTICLE.read_text(encoding="utf-8"), title=_TITLE)
    return np.concatenate([model.encode(sample), article.vectors])


def _read_whole(folder: Path, path: Path, sample: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors by a graph of whole texts: its own, and those of its hidden states, pooled as others do it."""
    tokenizer = unlimited(Tokenizer.from_file(str(folder / "tokenizer.json")))
    tokenizer.enable_padding()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    vectors, pooled = [], []
    for start in range(0, len(sample), BATCH):
        rows = tokenizer.encode_batch(sample[start : start + BATCH])
        mask = np.array([row.attention_mask for row in rows])
        hidden_states, embeddings = session.run(
            ["last_hidden_state", "sentence_embedding"],
            {"input_ids": np.array([row.ids for row in rows]), "attention_mask": mask},
        )
        means = (hidden_states * mask[..., None].astype(np.float32)).sum(1)
        vectors.append(embeddings)
        pooled.append(means / np.linalg.norm(means, axis=1, keepdims=True))
    return np.concatenate(vectors), np.concatenate(pooled)


def texts() -> list[str]:
    """The golden texts, and stretches of an article from everywhere in it: of one word up to all its 1,500 or so."""
    words = _ARTICLE.read_text(encoding="utf-8").split()
    lengths = np.geomspace(1, len(words), TEXTS - len(GOLDEN_TEXTS)).astype(int)
    starts = [(i * 37) % (len(words) - length + 1) for i, length in enumerate(lengths)]
    stretches = [" ".join(words[start : start + length]) for start, length in zip(starts, lengths, strict=True)]
    return [*GOLDEN_TEXTS, *stretches]
