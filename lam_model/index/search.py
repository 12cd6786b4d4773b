"""Exact cosine search over a corpus in one jsonl file, whose vectors are kept beside it.

A document counts as its best passage, a sentence or two: that finds more than the vector of the whole.
"""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..corpus.documents import Document, read
from ..corpus.vectors import in_chunks
from ..files import kind, replacing
from ..folder.base import sha256
from ..reading.cutting import PASSAGE_TOKENS, window

if TYPE_CHECKING:
    from ..runtime.onnx_encoder import OnnxEncoder
    from ..runtime.sentence_transformers import Lam

log = logging.getLogger(__name__)

WINDOW = 600  # characters: a passage alone is too short to be understood


class Index(NamedTuple):
    """The vectors of a corpus: those of a document's passages, or its own if it has none.

    Args:
        vectors: unit vectors, one document after another, float32 (vectors, size).
        offsets: where a passage begins and ends in its `Document.whole`, int64 (vectors, 2).
        counts: how many vectors each document has, one at least, int64 (documents,).
    """

    vectors: np.ndarray
    offsets: np.ndarray
    counts: np.ndarray


class Passage(NamedTuple):
    """A part of a document: `document.whole[start:end]`.

    Args:
        window: the text of the whole sentences around it, `WINDOW` characters at most.
    """

    start: int
    end: int
    text: str
    window: str


class Hit(NamedTuple):
    """A document that was found, with its cosine to the query: that of its best passage, if it has several.

    Args:
        kept: the columns that an index keeps beside the text, by name.
    """

    score: float
    id: str
    title: str
    text: str
    passage: Passage | None = None
    kept: Mapping[str, Any] = MappingProxyType({})


def read_corpus(path: Path) -> list[Document]:
    """The documents of a .jsonl file, as `documents.read` takes it; one without an id gets its number, counted from 0.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no .jsonl file, holds no documents, is malformed or has an id twice: naming the line.
    """
    if kind(path) != ".jsonl" or path.is_dir():
        raise ValueError(
            f"cannot search {path}: name the folder of an index, or a .jsonl file of objects with a `text`"
        )
    documents = [d._replace(id=str(i)) if d.id is None else d for i, d in enumerate(read(path))]
    if not documents:
        raise ValueError(f"{path} holds no documents: every line must be a JSON object with a `text`")
    return documents


def embed_corpus(
    model: Lam | OnnxEncoder, path: Path, key: str | None = None, batch_size: int = 32
) -> tuple[list[Document], Index]:
    """A corpus and its vectors, which are read from the file beside it if they are of this corpus and this model.

    Args:
        model: as from `lam_model.load`, or an `OnnxEncoder`.
        path: the corpus, as for `read_corpus`.
        key: the model's `key`; None: neither read nor write `CORPUS.jsonl.lam.npz`.
    """
    documents = read_corpus(path)
    beside = path.with_name(f"{path.name}.lam.npz")
    key = key and f"{sha256(path)} {key} {PASSAGE_TOKENS}"
    index = _cached(beside, key, len(documents)) if key else None
    if index is None:
        index = _embed(model, documents, batch_size)
        if key:
            _cache(beside, key, index)
    return documents, index


def search(
    model: Lam | OnnxEncoder, queries: list[str], documents: list[Document], index: Index, top_k: int = 5
) -> list[list[Hit]]:
    """The `top_k` documents of the highest cosine to each query, best first, the earlier of two equals first.

    A document's cosine is that of its best vector in the index.

    Args:
        documents, index: as from `embed_corpus`.

    Raises:
        ValueError: `top_k` is not positive.
    """
    if top_k < 1:
        raise ValueError(f"top_k is {top_k}: it must be at least 1")
    starts = np.cumsum(index.counts) - index.counts
    scores = np.asarray(model.encode(queries), np.float32) @ index.vectors.T
    of_documents = np.maximum.reduceat(scores, starts, axis=1)
    best = np.argsort(-of_documents, axis=1, kind="stable")[:, :top_k]

    def hit(scores: np.ndarray, i: int) -> Hit:
        document, count, passage = documents[i], index.counts[i], None
        number = starts[i] + scores[starts[i] : starts[i] + count].argmax()
        if count > 1:
            start, end = index.offsets[number].tolist()
            first, last = window(document.whole, start, end, WINDOW)
            passage = Passage(start, end, document.whole[start:end], document.whole[first:last])
        return Hit(float(scores[number]), document.id or "", document.title, document.text, passage)

    return [[hit(row, i) for i in order] for row, order in zip(scores, best, strict=True)]


def _embed(model: Lam | OnnxEncoder, documents: list[Document], batch_size: int) -> Index:
    vectors, offsets = [], []
    for chunk in in_chunks(documents):
        texts = [document.whole for document in chunk]
        for text, found in zip(texts, model.encode_passages(texts, PASSAGE_TOKENS, batch_size), strict=True):
            some = len(found.vectors) > 0
            vectors.append(found.vectors if some else found.vector[None])
            offsets.append(found.offsets if some else np.array([[0, len(text)]]))
    return Index(np.concatenate(vectors), np.concatenate(offsets), np.array([len(rows) for rows in vectors]))


def _cached(path: Path, key: str, count: int) -> Index | None:
    try:
        with np.load(path) as file:
            if str(file["key"]) != key:
                return None
            index = Index(*(file[name] for name in Index._fields))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # not there or damaged: written again
    vectors = (index.counts.sum(),)
    shapes = [array.shape[:1] for array in index]
    whole = shapes == [vectors, vectors, (count,)] and all(np.isfinite(array).all() for array in index)
    return index if whole else None


def _cache(path: Path, key: str, index: Index) -> None:
    try:
        with replacing(path) as beside, open(beside, "wb") as file:
            np.savez(file, key=np.array(key), **index._asdict())
    except OSError as error:
        log.warning("the vectors are not kept, for %s cannot be written (%s)", path, error)
