"""Exact cosine search over a corpus in one jsonl file, whose vectors are kept beside it."""

from __future__ import annotations

import hashlib
import json
import logging
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from . import __version__
from .base import sha256
from .encode import Document, encode_chunks, read
from .files import replacing

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

log = logging.getLogger(__name__)


class Hit(NamedTuple):
    """A document that was found, with its cosine to the query."""

    score: float
    id: str
    title: str
    text: str


def model_key(model: SentenceTransformer) -> str:
    """What tells a model's vectors from those of another: a sha256 over its weights and what else shapes them."""
    import torch

    base_only = any(getattr(module, "base_only", False) for module in model.modules())
    digest = hashlib.sha256(json.dumps([__version__, model.max_seq_length, base_only]).encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def read_corpus(path: Path) -> list[Document]:
    """The documents of a .jsonl file; one without an id gets its number, counted from 0, as its id.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no .jsonl file, holds no documents or is malformed: naming the line.
    """
    if path.suffix != ".jsonl":
        raise ValueError(f"cannot search {path}: a corpus is a .jsonl file of objects with `_id`, `title` and `text`")
    documents = [d._replace(id=str(i)) if d.id is None else d for i, d in enumerate(read(path))]
    if not documents:
        raise ValueError(f"{path} holds no documents: every line must be a JSON object with a `text`")
    return documents


def embed_corpus(
    model: SentenceTransformer, path: Path, model_key: str | None = None, batch_size: int = 32
) -> tuple[list[Document], np.ndarray]:
    """A corpus and its vectors, which are read from the file beside it if they are of this corpus and this model.

    Args:
        model: as from `lam_model.load`.
        path: the corpus, as for `read_corpus`.
        model_key: as from `model_key`; None: neither read nor write `CORPUS.jsonl.lam.npz`.

    Returns:
        The documents, and their unit vectors: float32 (documents, size).
    """
    documents = read_corpus(path)
    beside = path.with_name(f"{path.name}.lam.npz")
    key = model_key and f"{sha256(path)} {model_key}"
    vectors = _cached(beside, key, len(documents)) if key else None
    if vectors is None:
        vectors = np.concatenate([vectors for _, vectors in encode_chunks(model, documents, batch_size)])
        if key:
            _cache(beside, key, vectors)
    return documents, vectors


def search(
    model: SentenceTransformer, queries: list[str], documents: list[Document], vectors: np.ndarray, top_k: int = 5
) -> list[list[Hit]]:
    """The `top_k` documents of the highest cosine to each query, best first, the earlier of two equals first.

    Args:
        documents, vectors: as from `embed_corpus`.

    Raises:
        ValueError: `top_k` is not positive.
    """
    if top_k < 1:
        raise ValueError(f"top_k is {top_k}: it must be at least 1")
    scores = np.asarray(model.encode(queries, show_progress_bar=False), np.float32) @ vectors.T
    best = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
    return [
        [Hit(float(row[i]), documents[i].id or "", documents[i].title, documents[i].text) for i in order]
        for row, order in zip(scores, best, strict=True)
    ]


def _cached(path: Path, key: str, count: int) -> np.ndarray | None:
    try:
        with np.load(path) as file:
            if str(file["key"]) != key:
                return None
            vectors = file["vectors"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # not there or damaged: written again
    return vectors if vectors.shape[:1] == (count,) and np.isfinite(vectors).all() else None


def _cache(path: Path, key: str, vectors: np.ndarray) -> None:
    try:
        with replacing(path) as beside, open(beside, "wb") as file:
            np.savez(file, key=np.array(key), vectors=vectors)
    except OSError as error:
        log.warning("the vectors are not kept, for %s cannot be written (%s)", path, error)
