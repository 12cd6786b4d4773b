"""Where a text is cut into passages: after as many sentences as there is room for, else between words."""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from ..texts import clean

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

PASSAGE_TOKENS = 32  # a sentence or two: longer passages lose single facts
_SURROGATE_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n\s*")


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
        in_original(text, divide(encoding, one, size)[1])
        for encoding, one, text in zip(encodings, cleaned, texts, strict=True)
    ]


def divide(encoding: Encoding, text: str, size: int) -> tuple[list[list[int]], np.ndarray]:
    """The token ids of a text's passages, and the passages' offsets in the text."""
    words, ids = encoding.word_ids, encoding.ids
    if not ids:
        return [], np.empty((0, 2), np.int64)
    begins, ends = np.array(encoding.offsets, np.int64).T
    sentences = np.searchsorted(begins, [match.end() for match in _SENTENCE_END.finditer(text)])
    bounds = np.array(_bounds(words, sentences, size))
    passages = [ids[i:j] for i, j in pairwise(bounds.tolist())]
    return passages, np.stack([begins[bounds[:-1]], ends[bounds[1:] - 1]], axis=1)


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


def window(text: str, start: int, end: int, most: int) -> tuple[int, int]:
    """Whole sentences around a passage, as many as come to at most so many characters, on both sides alike.

    Args:
        start, end: where the passage lies in the text.
        most: characters. If the passage's own sentences have more, it stays as it is.
    """
    bounds = [0, *(match.end() for match in _SENTENCE_END.finditer(text)), len(text)]
    first, last = bisect_right(bounds, start) - 1, bisect_left(bounds, end)
    if bounds[last] - bounds[first] > most:
        return start, end
    while True:
        wider = [
            (i, j)
            for i, j in ((first - 1, last), (first, last + 1))
            if i >= 0 and j < len(bounds) and bounds[j] - bounds[i] <= most
        ]
        if not wider:
            break
        first, last = min(wider, key=lambda pair: max(start - bounds[pair[0]], bounds[pair[1]] - end))
    return bounds[first], bounds[first] + len(text[bounds[first] : bounds[last]].rstrip())


def in_original(text: str, offsets: np.ndarray) -> np.ndarray:
    """Offsets into a text from those into `clean(text)`, where a pair of surrogates is one character."""
    pairs = [match.start() - i for i, match in enumerate(_SURROGATE_PAIR.finditer(text))]
    return offsets + np.searchsorted(pairs, offsets)
