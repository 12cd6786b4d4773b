"""Documents to vectors, a chunk at a time, in flat memory."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ..files import utf8
from ..reading.cutting import PASSAGE_TOKENS
from .documents import Document

# A chunk is encoded at once, sorted by length: it ends at so many texts, or at so many characters of long ones.
_CHUNK_TEXTS = 2048
_CHUNK_CHARS = 4_000_000
_PIECE_BYTES = 1 << 16  # of a stream
_OF_PASSAGES = ("passage", "start", "end")


class Chunk(NamedTuple):
    """Some rows of an output.

    Args:
        columns: what stands beside a vector in each row, by name.
        vectors: float32 (rows, size).
        texts: how many documents the rows are of.
    """

    columns: dict[str, list[Any]]
    vectors: np.ndarray
    texts: int


class Texts(NamedTuple):
    """Some documents that are encoded together.

    Args:
        ids: of each its own, or its number in the whole input, from 0.
        texts: of each, its title and text.
        kept: the columns that are passed on, by name.
    """

    ids: list[str]
    texts: list[str]
    kept: dict[str, list[Any]]


def in_texts(documents: Iterable[Document], keep: Sequence[str] = ()) -> Iterator[Texts]:
    """Yields documents, as many at a time as are to be encoded together.

    Args:
        documents: read as needed.
        keep: the names of their `kept` values.

    Raises:
        ValueError: there are no documents.
    """
    count = 0
    for chunk in _chunks(documents):
        ids = [str(count + i) if one.id is None else one.id for i, one in enumerate(chunk)]
        kept = {name: [one.kept[i] for one in chunk] for i, name in enumerate(keep)}
        yield Texts(ids, [one.whole for one in chunk], kept)
        count += len(chunk)
    if not count:
        raise ValueError("there are no texts to encode: the input is empty")


@dataclass(frozen=True)
class Encoding:
    """How texts become rows. It can be pickled if its model can.

    Args:
        model: as from `lam_model.load`, or an `OnnxEncoder`.
        passages: rows of passages, with the columns `passage` (its number in the document, from 0), `start` and `end`:
            a passage is `document.whole[start:end]`. A document without a word has none.
        with_text: whether a row has a column `text`: the passage, or the title and text of the document.
        options: of the model's `encode`.
    """

    model: Any
    passages: bool = False
    with_text: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """Those that stand before what is kept."""
        return ["id", *(_OF_PASSAGES if self.passages else ()), *(["text"] if self.with_text else ())]

    @property
    def key(self) -> str:
        """Changes with whatever would change a row."""
        return f"{self.model.key} {' '.join(self.columns)} {PASSAGE_TOKENS if self.passages else ''}"

    def __call__(self, some: Texts) -> Chunk:
        """The rows of some documents."""
        rows = self._passages(some) if self.passages else self._texts(some)
        if not self.with_text:
            del rows.columns["text"]
        return rows

    def _texts(self, some: Texts) -> Chunk:
        vectors = np.asarray(self.model.encode(some.texts, **self.options), np.float32)
        return Chunk({"id": some.ids, "text": some.texts} | some.kept, vectors, len(some.ids))

    def _passages(self, some: Texts) -> Chunk:
        found = self.model.encode_passages(some.texts)
        counts = [len(one.vectors) for one in found]
        offsets = np.concatenate([one.offsets for one in found])

        def of_each(values: list[Any]) -> list[Any]:
            return [value for value, count in zip(values, counts, strict=True) for _ in range(count)]

        bounds = offsets.tolist()
        columns = {
            "id": of_each(some.ids),
            "passage": [number for count in counts for number in range(count)],
            "start": [start for start, _ in bounds],
            "end": [end for _, end in bounds],
            "text": [text[start:end] for text, (start, end) in zip(of_each(some.texts), bounds, strict=True)],
        }
        columns |= {name: of_each(values) for name, values in some.kept.items()}
        return Chunk(columns, np.concatenate([one.vectors for one in found]), len(some.ids))


def encode_stream(model: Any, file: BinaryIO) -> Iterator[Chunk]:
    """Yields the vector of the one text that a file is, read in pieces; its id is 0. Progress goes to stderr.

    Args:
        model: as for `Stream`.
        file: UTF-8 of any size.

    Raises:
        ValueError: it is not UTF-8.
    """
    from ..progress import progress
    from ..reading.stream import Stream

    stream, decoder = Stream(model), codecs.getincrementaldecoder("utf-8-sig")()
    size = os.fstat(file.fileno()).st_size or None  # a pipe has none
    with progress(total=size, unit="B", unit_scale=True) as bar, utf8(file.name):
        while piece := file.read(_PIECE_BYTES):
            stream.feed(decoder.decode(piece))
            bar.update(len(piece))
        stream.feed(decoder.decode(b"", final=True))
    yield Chunk({"id": ["0"]}, stream.vector()[None], 1)


def in_chunks(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Yields documents, as many at a time as are to be encoded together; progress goes to stderr."""
    from ..progress import progress

    with progress(unit=" texts") as bar:
        for chunk in _chunks(documents):
            yield chunk
            bar.update(len(chunk))


def _chunks(documents: Iterable[Document]) -> Iterator[list[Document]]:
    chunk: list[Document] = []
    chars = 0
    for document in documents:
        chunk.append(document)
        chars += len(document.text)
        if len(chunk) == _CHUNK_TEXTS or chars >= _CHUNK_CHARS:
            yield chunk
            chunk, chars = [], 0
    if chunk:
        yield chunk
