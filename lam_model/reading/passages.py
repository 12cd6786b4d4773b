"""Passages of a document: a document's vector and those of its passages, from one pass over its text.

Each passage is read as a text of its own, with [CLS] and [SEP], but it does not start from nothing: it starts from what
the document's beginning left, its title and first words, and from what the passage before left, each times a factor
that the DeltaNet layers have learned (`lam_model/model/directions.py`). So it knows what the document is about, and
what was said just before. A part of the vectors of both is added to its own, for questions that name the document, and
for answers of several passages. As many passages as a block has room for are read at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain, islice
from operator import index as index_of
from types import NoneType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..texts import check_documents, clean
from .cutting import PASSAGE_TOKENS, divide, in_original, window
from .reader import Reader, State

if TYPE_CHECKING:
    from tokenizers import Encoding

BEGINNING_TOKENS = 64  # of title and text, which every passage knows
OF_BEGINNING = OF_BEFORE = 0.1  # of their unit vectors, that is added to a passage's own
_ALONE = 256  # passages that are read together without context

Document = str | Sequence[str]  # a text to be cut into passages, or its passages in order
Spans = Sequence[tuple[int, int]]  # characters where passages begin and end


class Passages(NamedTuple):
    """A document's vector and those of its passages.

    Args:
        vector: the unit vector of the document, float32 (size,): the mean over the tokens of all passages.
        vectors: unit vectors of the passages, float32 (passages, size).
        offsets: where they lie, int64 (passages, 2): passage i is `text[start:end]` with `start, end = offsets[i]`. Of
            a document that was given in passages, `text` is these joined: `"".join(passages)`.
    """

    vector: np.ndarray
    vectors: np.ndarray
    offsets: np.ndarray

    def window(self, text: str, i: int, chars: int = 600) -> tuple[int, int]:
        """Where a wider piece of the text around passage `i` begins and ends: whole sentences on both sides of it.

        Args:
            text: of the document.
            chars: most characters of the piece; the passage itself is always in it.
        """
        start, end = self.offsets[i].tolist()
        return window(text, start, end, chars)


def encode_passages(
    reader: Reader,
    documents: Sequence[Document],
    size: int = PASSAGE_TOKENS,
    batch_size: int = 8,
    limit: float = math.inf,
    dim: int | None = None,
    titles: Sequence[str | None] | None = None,
    spans: Sequence[Spans] | None = None,
    context: bool = True,
) -> list[Passages]:
    """Embed documents and their passages in one pass, so that a passage knows its document.

    A text is cut into passages of as many sentences as there is room for; a sentence over `size` is divided evenly
    between words. A passage's vector is the mean of its tokens' last hidden states, normalised; in its document, 0.1
    times the beginning's and 0.1 times that of the passage before are added, and the sum is normalised. A text without
    a word has no passage.

    Args:
        documents: each is a text, or a list of its passages in order.
        size: most tokens of a passage that is cut here.
        batch_size: documents that are read together, a block of each at a time.
        limit: most tokens of a document, [CLS] and [SEP] counted; the rest is left out.
        dim: numbers of a vector that are kept; all if None.
        titles: one for each document, None where it is not known apart from the text. A title is part of no passage.
        spans: for each document, the characters where its passages begin and end, instead of `size`.
        context: whether passages know their document; if not, each has the vector that `encode` gives of its text.

    Raises:
        TypeError: something is not a string, or not a pair of integers; the message says where.
        ValueError: `size` or `batch_size` is out of range; there is not one title or list of spans for each document;
            or spans overlap, are out of order or leave the text.
    """
    most = reader.block_size - 2  # [CLS] and [SEP]
    if not 1 <= size <= most:
        raise ValueError(f"size is {size}: a passage has from 1 to {most} tokens")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}: it must be at least 1")
    documents = check_documents(documents)
    known = _titles(titles, len(documents))
    given = list(map(_given, documents))
    if spans is not None:
        if len(spans) != len(documents):
            raise ValueError(f"there are {len(spans)} lists of spans for {len(documents)} documents: give one for each")
        given = [_at(*one, i) for i, one in enumerate(zip(documents, spans, strict=True))]
    lengths = [sum(map(len, document)) for document in documents]
    order = sorted(range(len(documents)), key=lambda i: -lengths[i])  # alike in length, with few pads
    found: dict[int, Passages] = {}
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        cut = _cut(reader, [documents[i] for i in rows], [given[i] for i in rows], size, limit)
        read = _in_document(reader, cut, [known[i] for i in rows]) if context else _alone(reader, cut)
        for i, (vectors, total), one in zip(rows, read, cut, strict=True):
            found[i] = Passages(_unit(total[:dim]), _unit(vectors[:, :dim]), one.offsets)
    return [found[i] for i in range(len(documents))]


class _Cut(NamedTuple):
    passages: list[list[int]]  # their token ids
    offsets: np.ndarray


_Vectors = tuple[np.ndarray, np.ndarray]  # of the passages, (passages, size), and of the document, of any length


_Given = tuple[list[str], np.ndarray]  # passages of a document that was cut before, and their offsets


def _titles(titles: Sequence[str | None] | None, documents: int) -> list[str]:
    if titles is None:
        return [""] * documents
    if isinstance(titles, str) or len(titles) != documents:
        given = "one title" if isinstance(titles, str) else f"{len(titles)} titles"
        raise ValueError(f"there is {given} for {documents} documents: give one for each, None where there is none")
    for i, title in enumerate(titles):
        if not isinstance(title, (str, NoneType)):
            raise TypeError(f"the title at index {i} is {type(title).__name__} ({title!r:.60}): give a string or None")
    return clean([title or "" for title in titles])


def _given(document: Document) -> _Given | None:
    """The passages that a document was given in; None of a text that is to be cut here."""
    if isinstance(document, str):
        return None
    ends = np.cumsum([0, *map(len, document)])
    return list(document), np.stack([ends[:-1], ends[1:]], axis=1)


def _at(document: Document, spans: Spans, index: int) -> _Given:
    """The passages of a text at some spans."""
    where = f"the document at index {index}"
    if not isinstance(document, str):
        raise ValueError(f"{where} is a list of passages and has spans too: give one of both")
    before = 0
    for number, span in enumerate(spans):
        try:
            start, end = map(index_of, span)
        except (TypeError, ValueError):
            raise TypeError(f"{where}: span {number} is {span!r:.60}: give a pair of integers") from None
        if not before <= start <= end <= len(document):
            raise ValueError(
                f"{where}: span {number}, ({start}, {end}), overlaps the one before or leaves the text of "
                f"{len(document)} characters: give spans in order"
            )
        before = end
    return [document[start:end] for start, end in spans], np.array(spans, np.int64).reshape(-1, 2)


def _cut(
    reader: Reader, documents: Sequence[Document], given: Sequence[_Given | None], size: int, limit: float
) -> list[_Cut]:
    """The passages of documents, cut here or before."""
    strings = [clean(one[0] if one else [str(text)]) for text, one in zip(documents, given, strict=True)]
    encodings = iter(reader.tokenizer.encode_batch([*chain(*strings)], add_special_tokens=False))
    found = []
    for document, one, texts in zip(documents, given, strings, strict=True):
        some = _limited([next(encodings) for _ in texts], limit - 2)
        if one:
            found.append(_Cut([encoding.ids for encoding in some], one[1]))
        else:
            passages, offsets = divide(some[0], texts[0], size)
            found.append(_Cut(passages, in_original(str(document), offsets)))
    return found


def _limited(encodings: list[Encoding], room: float) -> list[Encoding]:
    for encoding in encodings:
        if len(encoding) > room:
            encoding.truncate(int(max(room, 0)))
        room -= len(encoding)
    return encodings


def _in_document(reader: Reader, cut: list[_Cut], titles: list[str]) -> list[_Vectors]:
    """Read documents with their passages as parts, before them the beginning."""
    cls, sep = reader.tokenizer.encode("").ids
    most = reader.block_size - 2
    documents, owners = [], []
    for one, title in zip(cut, reader.tokenizer.encode_batch(titles, add_special_tokens=False), strict=True):
        beginning = beginning_of(title.ids, one.passages, most)
        # A longer passage is several parts: their sums add up to its own.
        parts = [
            (number, ids[i : i + most])
            for number, ids in enumerate(one.passages or [[]])
            for i in range(0, max(1, len(ids)), most)
        ]
        read = [*([beginning] if beginning else []), *(part for _, part in parts)]
        documents.append(_grouped([[cls, *part, sep] for part in read], reader.block_size))
        owners.append([-1] * bool(beginning) + [number for number, _ in parts])
    found = []
    for rows, owner, one in zip(_read(reader, documents, in_parts=True), owners, cut, strict=True):
        sums = np.zeros((len(one.passages) or 1, rows.shape[1]), np.float32)
        np.add.at(sums, [number for number in owner if number >= 0], rows[[number >= 0 for number in owner]])
        vectors = _unit(sums[: len(one.passages)])
        vectors[1:] += OF_BEFORE * vectors[:-1]
        if -1 in owner:
            vectors += OF_BEGINNING * _unit(rows[0])
        found.append((vectors, sums.sum(0)))
    return found


def beginning_of(title: list[int], passages: list[list[int]], most: int = BEGINNING_TOKENS) -> list[int]:
    """The tokens that every passage of a document knows; none where there is but one passage and no title.

    The title stands before the first words and after them: a state keeps most of what was read last.
    """
    if not title and len(passages) < 2:
        return []
    most = min(most, BEGINNING_TOKENS)
    title = title[: most // 2]
    words = list(islice(chain(*passages), most - 2 * len(title)))
    return [*title, *words, *title]


def _alone(reader: Reader, cut: list[_Cut]) -> list[_Vectors]:
    """Read each passage as a text of its own."""
    cls, sep = reader.tokenizer.encode("").ids
    size = reader.block_size
    texts = [[cls, *ids, sep] for one in cut for ids in (one.passages or [[]])]
    blocks = [[[ids[i : i + size]] for i in range(0, len(ids), size)] for ids in texts]
    sums: list[np.ndarray] = []
    for start in range(0, len(blocks), _ALONE):
        sums += [rows.sum(0) for rows in _read(reader, blocks[start : start + _ALONE], in_parts=False)]
    found, at = [], 0
    for one in cut:
        count = len(one.passages) or 1
        rows = np.stack(sums[at : at + count])
        found.append((rows[: len(one.passages)], rows.sum(0)))
        at += count
    return found


def _read(reader: Reader, blocks: list[list[list[list[int]]]], in_parts: bool) -> list[np.ndarray]:
    """The sums of the hidden states of each text's parts, float32 (parts, size).

    Args:
        blocks: of each text, with the tokens of the parts in each.
        in_parts: whether each part is read as if it began a text; else the first of each text alone.
    """
    states: list[State] = [None] * len(blocks)
    sums: list[list[np.ndarray]] = [[] for _ in blocks]
    for number in range(max(map(len, blocks), default=0)):
        rows = [row for row, text in enumerate(blocks) if number < len(text)]
        before = [states[row] for row in rows]
        found, after = reader.read([blocks[row][number] for row in rows], before, first=in_parts or number == 0)
        for row, some, state in zip(rows, found, after, strict=True):
            sums[row].append(some)
            states[row] = state
    return [np.concatenate(parts) for parts in sums]


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True).clip(min=1e-12)


def _grouped(parts: list[list[int]], most: int) -> list[list[list[int]]]:
    """Successive parts, as many together as come to at most so many tokens."""
    groups: list[list[list[int]]] = []
    room = 0
    for part in parts:
        if len(part) > room:
            groups.append([])
            room = most
        groups[-1].append(part)
        room -= len(part)
    return groups
