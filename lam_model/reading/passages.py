"""Passages of a document: a text's vector and those of its passages, from one pass over the text.

Each passage is read as a block of its own: the state from left to right goes through all of them, but fades from one to
the next, so that in effect a passage knows the two or three before it; from right to left a passage knows itself alone,
for it would be blurred by those to its right. As many as a block has room for are read at once, with a pad between them
at which the states fade and end.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..texts import clean
from .reader import Reader, State

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

PASSAGE_TOKENS = 32  # a sentence or two: longer passages lose single facts
_SURROGATE_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n\s*")


class Passages(NamedTuple):
    """A text's vector and those of its passages.

    Args:
        vector: the unit vector of the text, float32 (size,): the mean over the tokens of all passages.
        vectors: unit vectors of the passages, float32 (passages, size).
        offsets: where they lie, int64 (passages, 2): passage i is `text[start:end]` with `start, end = offsets[i]`.
    """

    vector: np.ndarray
    vectors: np.ndarray
    offsets: np.ndarray


def encode_passages(
    reader: Reader,
    texts: list[str],
    size: int = PASSAGE_TOKENS,
    batch_size: int = 8,
    limit: float = math.inf,
    dim: int | None = None,
) -> list[Passages]:
    """Embed texts and their passages in one pass, so that a passage knows those just before it.

    A passage is as many sentences as there is room for; a sentence over `size` is divided evenly between words. It is
    read as a block of its own, with a fifth of the state that the one before it left, so that in effect it knows the
    two or three before it. Its vector is the mean of its tokens' last hidden states, normalised. A text without a word
    has none.

    Args:
        size: most tokens of a passage.
        batch_size: texts that are read together, a block of each at a time.
        limit: most tokens of a text, [CLS] and [SEP] counted; the rest is left out.
        dim: numbers of a vector that are kept; all if None.

    Raises:
        TypeError: something is not a string.
        ValueError: `size` or `batch_size` is out of range.
    """
    most = reader.block_size - 2  # a block may hold [CLS] and [SEP] too
    if not 1 <= size <= most:
        raise ValueError(f"size is {size}: a passage has from 1 to {most} tokens")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}: it must be at least 1")
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))  # alike in length, with few pads
    found: dict[int, Passages] = {}
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        found.update(zip(rows, _encode_batch(reader, [texts[i] for i in rows], size, limit, dim), strict=True))
    return [found[i] for i in range(len(texts))]


def passage_offsets(tokenizer: Tokenizer, texts: Sequence[str], size: int = PASSAGE_TOKENS) -> list[np.ndarray]:
    """Where `encode_passages` cuts texts, without reading them.

    Args:
        tokenizer: neither cuts nor pads.
        size: most tokens of a passage.

    Returns:
        For each text, as `Passages.offsets`: int64 (passages, 2), in characters.
    """
    cleaned = clean(texts)
    encodings = tokenizer.encode_batch(cleaned, add_special_tokens=False)
    return [
        _in_original(text, _divide(encoding, one, size)[1])
        for encoding, one, text in zip(encodings, cleaned, texts, strict=True)
    ]


def _encode_batch(reader: Reader, texts: list[str], size: int, limit: float, dim: int | None) -> list[Passages]:
    cleaned, tokenizer = clean(texts), reader.tokenizer
    cls, sep = tokenizer.encode("").ids
    encodings = tokenizer.encode_batch(cleaned, add_special_tokens=False)
    for encoding in encodings:
        if limit < len(encoding) + 2:
            encoding.truncate(max(0, int(limit) - 2))
    divided = [_divide(encoding, text, size) for encoding, text in zip(encodings, cleaned, strict=True)]
    blocks = [_grouped(_with_ends(passages, cls, sep), reader.block_size) for passages, _ in divided]
    sums = [rows[:, :dim] for rows in _read(reader, blocks)]
    return [
        Passages(_unit(rows.sum(0)), _unit(rows[: len(spans)]), _in_original(text, spans))
        for rows, (_, spans), text in zip(sums, divided, texts, strict=True)
    ]


def _read(reader: Reader, blocks: list[list[list[list[int]]]]) -> list[np.ndarray]:
    """The sums of the hidden states of each text's passages, float32 (passages, size).

    Args:
        blocks: of each text, with the tokens of the passages in each.
    """
    states: list[State] = [None] * len(blocks)
    sums: list[list[np.ndarray]] = [[] for _ in blocks]
    for number in range(max(map(len, blocks), default=0)):
        rows = [row for row, text in enumerate(blocks) if number < len(text)]
        before = [states[row] for row in rows]
        found, after = reader.read([blocks[row][number] for row in rows], before, first=number == 0)
        for row, some, state in zip(rows, found, after, strict=True):
            sums[row].append(some)
            states[row] = state
    return [np.concatenate(parts) for parts in sums]


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True).clip(min=1e-12)


def _grouped(passages: list[list[int]], most: int) -> list[list[list[int]]]:
    """Successive passages, as many together as come to at most so many tokens with a pad between them."""
    groups: list[list[list[int]]] = []
    room = 0
    for passage in passages:
        if len(passage) > room:
            groups.append([])
            room = most
        groups[-1].append(passage)
        room -= len(passage) + 1
    return groups


def _divide(encoding: Encoding, text: str, size: int) -> tuple[list[list[int]], np.ndarray]:
    """The token ids of a text's passages, and the passages' offsets."""
    words, ids = encoding.word_ids, encoding.ids
    if not ids:
        return [], np.empty((0, 2), np.int64)
    begins, ends = np.array(encoding.offsets, np.int64).T
    sentences = np.searchsorted(begins, [match.end() for match in _SENTENCE_END.finditer(text)])
    bounds = np.array(_bounds(words, sentences, size))
    passages = [ids[i:j] for i, j in pairwise(bounds.tolist())]
    return passages, np.stack([begins[bounds[:-1]], ends[bounds[1:] - 1]], axis=1)


def _with_ends(passages: list[list[int]], cls: int, sep: int) -> list[list[int]]:
    """[CLS] and [SEP] are read with the first passage and the last; without a passage, they are a block."""
    passages = passages or [[]]
    passages = [[cls, *passages[0]], *passages[1:]]
    return [*passages[:-1], [*passages[-1], sep]]


def _bounds(words: list[int | None], sentences: np.ndarray, size: int) -> list[int]:
    """Where passages begin and the last one ends, in tokens: as many sentences as there is room for.

    A longer sentence is divided evenly, between words where there is a way.

    Args:
        words: the number of each token's word.
        sentences: the tokens that sentences begin with.
    """
    bounds, length = [0], len(words)
    for begin, end in pairwise(sorted({0, *sentences.tolist(), length})):
        if end - bounds[-1] > size and begin > bounds[-1]:
            bounds.append(begin)
        while (rest := end - bounds[-1]) > size:
            even = bounds[-1] + math.ceil(rest / math.ceil(rest / size))
            between = even
            while between > bounds[-1] and words[between] == words[between - 1]:
                between -= 1
            bounds.append(between if between > bounds[-1] else even)
    return [*bounds, length]


def _in_original(text: str, offsets: np.ndarray) -> np.ndarray:
    """Offsets into a text from those into `clean(text)`, where a pair of surrogates is one character."""
    pairs = [match.start() - i for i, match in enumerate(_SURROGATE_PAIR.finditer(text))]
    return offsets + np.searchsorted(pairs, offsets)
