"""The manifest of a model folder: the sha256 of every file, and golden vectors; and the checks of a folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..files import write_json
from .base import sha256
from .tensors import read_model

MANIFEST = "manifest.json"
ONNX = "onnx/"  # where graphs are, written and checked apart from all else
NO_LIMIT = 10**9  # tokens: nothing is truncated; transformers would warn of a missing limit
GOLDEN_TEXTS = (
    "A gated delta rule keeps what it has read in a small matrix.",
    "naïve café — 東京 🙂 ½",
    "",
    "The cell divides, and each daughter carries a copy of the whole. " * 60,
)
_GOLDEN_TOLERANCE = 1e-4

# Unit vectors, (texts, size), of texts by the model of a folder; which runtime computes them is the caller's choice.
Embed = Callable[[Path, Sequence[str]], np.ndarray]


def write_manifest(folder: Path, files: Iterable[str], embed: Embed, **made_of: str) -> None:
    """Write the manifest of a folder whose other files are all there.

    Args:
        files: names within the folder.
        made_of: what else the manifest says, such as the sha256 of the weights that the model was built from.

    Raises:
        ValueError: the model gives vectors that are not finite.
    """
    manifest = {**made_of, "sha256": {name: sha256(folder / name) for name in sorted(files)}}
    write_json(folder / MANIFEST, manifest)
    vectors = _vectors(folder, embed, GOLDEN_TEXTS).round(6).tolist()
    golden = [{"text": text, "vector": vector} for text, vector in zip(GOLDEN_TEXTS, vectors, strict=True)]
    write_json(folder / MANIFEST, manifest | {"golden": golden})


def check(folder: Path) -> dict[str, Any]:
    """Check that a folder is a whole, unaltered LAM, and return its manifest.

    Raises:
        FileNotFoundError, ValueError: naming the file and what is wrong with it.
    """
    model_config(folder)
    if not (folder / MANIFEST).is_file():
        raise FileNotFoundError(
            f"{folder / MANIFEST} is missing: if a trainer saved this folder, make it whole with "
            f"`lam verify --adopt {folder}`; else fetch or build the model again"
        )
    return check_files(folder)


def check_files(folder: Path, names: Iterable[str] | None = None) -> dict[str, Any]:
    """Check that files of a model folder are those of its manifest, and return it.

    Args:
        names: of files; all but the ONNX graphs if None.

    Raises:
        FileNotFoundError, ValueError: naming the file and what is wrong with it.
    """
    manifest = read_json(folder / MANIFEST)
    expected = manifest["sha256"]
    for name in [name for name in expected if not name.startswith(ONNX)] if names is None else names:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name} is missing: fetch or build the model again")
        if sha256(folder / name) != expected.get(name):
            raise ValueError(f"{folder / name} was altered or damaged: fetch or build the model again")
    return manifest


def verify(folder: Path, embed: Embed) -> list[str]:
    """Check everything about a model folder: hashes, keys, shapes, dtypes, finiteness, golden vectors.

    Returns:
        What was checked, a line each.

    Raises:
        FileNotFoundError, ValueError: naming the file and what is wrong with it.
    """
    manifest, tensors = check(folder), read_model(folder, model_config(folder))
    golden = manifest["golden"]
    vectors = _vectors(folder, embed, [one["text"] for one in golden])
    difference = float(np.abs(vectors - np.array([one["vector"] for one in golden])).max())
    if not difference <= _GOLDEN_TOLERANCE:  # a NaN fails too
        raise ValueError(f"{folder}: golden vectors differ by {difference:.1e}, over {_GOLDEN_TOLERANCE}")
    return [
        f"{len(manifest['sha256'])} files have the sha256 of the manifest",
        f"{len(tensors)} tensors are there, of the right shape, float32 and finite",
        f"{len(golden)} golden vectors agree within {difference:.1e}",
    ]


def model_config(folder: Path) -> dict[str, Any]:
    """The configuration of a LAM's folder.

    Raises:
        FileNotFoundError, ValueError: it has none, or that of another kind of model.
    """
    config = read_json(folder / "config.json")
    if config.get("model_type") != "lam":
        raise ValueError(f"{folder} holds a {config.get('model_type')!r} model, not a LAM: name another folder")
    return config


def read_json(path: Path) -> Any:
    """The content of a JSON file of a model folder.

    Raises:
        FileNotFoundError, ValueError: it is missing or damaged; the message names it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: fetch or build the model again")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): fetch or build the model again") from error


def _vectors(folder: Path, embed: Embed, texts: Sequence[str]) -> np.ndarray:
    vectors = np.asarray(embed(folder, list(texts)))
    if not np.isfinite(vectors).all():
        raise ValueError(f"{folder} gives vectors that are not finite: build it again")
    return vectors
