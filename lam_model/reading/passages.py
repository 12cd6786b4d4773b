"""Passages of a document: a text's vector and those of its passages, from one pass over the text.

Each passage is read as a block of its own: the state from left to right goes through all of them, but fades from one to
the next, so that in effect a passage knows the two or three before it; from right to left a passage knows itself alone,
for it would be blurred by those to its right. As many as a block has room for are read at once, with a pad between them
at which the states fade and end.
"""

from __future__ import annotations

import math
import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from ..model.batching import CPU, GPU, alike
from ..texts import clean
from .stream import lam_of
from .tokenizing import plain_tokenizer

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from tokenizers import Encoding

PASSAGE_TOKENS = 32  # a sentence or two: longer passages lose single facts
_BREAK, _END = -1, -2  # in place of a passage's number: between two, and after the last
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


@torch.inference_mode()
def encode_passages(
    model: SentenceTransformer, texts: list[str], size: int = PASSAGE_TOKENS, batch_size: int = 8
) -> list[Passages]:
    """The passages of each text; see `Lam.encode_passages`."""
    most = lam_of(model).config.block_size - 2  # a block may hold [CLS] and [SEP] too
    if not 1 <= size <= most:
        raise ValueError(f"size is {size}: a passage has from 1 to {most} tokens")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}: it must be at least 1")
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))  # alike in length, with few pads
    found: dict[int, Passages] = {}
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        found.update(zip(rows, _encode_batch(model, [texts[i] for i in rows], size), strict=True))
    return [found[i] for i in range(len(texts))]


def _encode_batch(model: SentenceTransformer, texts: list[str], size: int) -> list[Passages]:
    lam, cleaned, tokenizer = lam_of(model), clean(texts), plain_tokenizer(model.tokenizer)
    cls, sep = tokenizer.encode("").ids
    encodings = tokenizer.encode_batch(cleaned, add_special_tokens=False)
    for encoding in encodings:
        if model.max_seq_length < len(encoding) + 2:
            encoding.truncate(max(0, model.max_seq_length - 2))
    divided = [_divide(encoding, text, size) for encoding, text in zip(encodings, cleaned, strict=True)]
    blocks = [_grouped(_with_ends(passages, cls, sep), lam.config.block_size) for passages, _ in divided]
    vectors = [rows[:, : model.truncate_dim] for rows in _read(lam, blocks)]
    return [
        Passages(_unit(rows.sum(0)), _unit(rows[: len(spans)]), _in_original(text, spans))
        for rows, (_, spans), text in zip(vectors, divided, texts, strict=True)
    ]


def _read(lam: Any, blocks: list[list[list[list[int]]]]) -> list[Tensor]:
    """The sums of the hidden states of each text's passages, float32 (passages, size).

    Args:
        blocks: of each text, with the tokens of the passages in each.
    """
    limits = CPU if lam.device.type == "cpu" else GPU
    states: list[Tensor | None] = [None for _ in blocks]
    sums: list[list[Tensor]] = [[] for _ in blocks]
    for number in range(max(map(len, blocks), default=0)):
        joined = {row: _joined(text[number]) for row, text in enumerate(blocks) if number < len(text)}
        rows = sorted(joined, key=lambda row: -len(joined[row][0]))
        for group in alike([len(joined[row][0]) for row in rows], **limits):
            some = rows[group]
            ids, passage = (
                pad_sequence(x, True, _END).to(lam.device) for x in zip(*map(joined.get, some), strict=True)
            )
            real = passage >= 0
            ids = ids.masked_fill(~real, lam.config.pad_token_id)
            state = torch.stack([states[row] for row in some]) if states[some[0]] is not None else None
            output = lam.forward_block(ids, real.long(), state, first_block=number == 0, breaks=passage == _BREAK)
            counts = [len(blocks[row][number]) for row in some]
            tokens_of = passage[:, None] == torch.arange(max(counts), device=lam.device)[:, None]
            with torch.autocast(lam.device.type, enabled=False):
                found = tokens_of.float() @ output.last_hidden_state.float()
            for i, (row, count) in enumerate(zip(some, counts, strict=True)):
                sums[row].append(found[i, :count])
                states[row] = None if output.state is None else output.state[i]
    return [torch.cat(parts) for parts in sums]


def _unit(vectors: Tensor) -> np.ndarray:
    return F.normalize(vectors, dim=-1).cpu().numpy()


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


def _joined(passages: list[list[int]]) -> tuple[Tensor, Tensor]:
    """The tokens of passages, and the number of each token's; both are `_BREAK` between two passages."""
    ids: list[int] = []
    numbers: list[int] = []
    for number, passage in enumerate(passages):
        ids += [_BREAK] * bool(ids) + passage
        numbers += [_BREAK] * bool(numbers) + [number] * len(passage)
    return torch.tensor(ids, dtype=torch.long), torch.tensor(numbers, dtype=torch.long)


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


def _bounds(words: list[int], sentences: np.ndarray, size: int) -> list[int]:
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
