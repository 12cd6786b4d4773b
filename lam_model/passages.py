"""Passages that know their document: a text's vector and those of its passages, from one pass over the text."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from .stream import lam_of
from .texts import clean

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from tokenizers import Encoding

_SURROGATE_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")


class Passages(NamedTuple):
    """A text's vector and those of its passages.

    Args:
        vector: the unit vector of the text, float32 (size,), as `model.encode` gives it.
        vectors: unit vectors of the passages, float32 (passages, size).
        offsets: where they lie, int64 (passages, 2): passage i is `text[start:end]` with `start, end = offsets[i]`.
    """

    vector: np.ndarray
    vectors: np.ndarray
    offsets: np.ndarray


@torch.inference_mode()
def encode_passages(
    model: SentenceTransformer, texts: list[str], size: int = 256, batch_size: int = 32
) -> list[Passages]:
    """The passages of each text; see `Lam.encode_passages`."""
    lam_of(model)
    if size < 1:
        raise ValueError(f"size is {size}: a passage has at least one token")
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))  # alike in length, with few pads
    found: dict[int, Passages] = {}
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        found.update(zip(rows, _encode_batch(model, [texts[i] for i in rows], size), strict=True))
    return [found[i] for i in range(len(texts))]


def _encode_batch(model: SentenceTransformer, texts: list[str], size: int) -> list[Passages]:
    lam = lam_of(model)
    encodings = model.tokenizer(clean(texts), truncation=True, return_offsets_mapping=True).encodings
    numbers, offsets = zip(*(_divide(encoding, size) for encoding in encodings), strict=True)

    def padded(rows: list[Any], value: int) -> Tensor:
        return pad_sequence([torch.as_tensor(row) for row in rows], True, value).to(lam.device)

    ids = padded([encoding.ids for encoding in encodings], model.tokenizer.pad_token_id)
    mask = padded([encoding.attention_mask for encoding in encodings], 0)
    passage = padded(list(numbers), 0)
    sums = torch.zeros(len(texts), 1 + max(map(len, offsets)), lam.config.hidden_size, device=lam.device)
    state, block_size = None, lam.config.block_size
    for start in range(0, ids.shape[1], block_size):
        block = slice(start, start + block_size)
        output = lam.forward_block(ids[:, block], mask[:, block], state, first_block=start == 0)
        state, hidden = output.state, output.last_hidden_state.float() * mask[:, block, None]
        sums.scatter_add_(1, passage[:, block, None].expand_as(hidden), hidden)
    dim = model.truncate_dim
    wholes = F.normalize(sums.sum(1)[..., :dim], dim=-1).cpu().numpy()
    vectors = F.normalize(sums[:, 1:, :dim], dim=-1).cpu().numpy()
    return [
        Passages(whole, rows[: len(spans)].copy(), _in_original(text, spans))
        for text, whole, rows, spans in zip(texts, wholes, vectors, offsets, strict=True)
    ]


def _divide(encoding: Encoding, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The number of each token's passage, counted from 1, and 0 for [CLS] and [SEP]; the passages' offsets."""
    words = encoding.word_ids
    inner = np.flatnonzero([word is not None for word in words])
    bounds = _bounds([words[i] for i in inner], size)
    numbers = np.zeros(len(words), np.int64)
    numbers[inner] = np.searchsorted(bounds, np.arange(len(inner)), side="right")
    begins, ends = np.array(encoding.offsets, np.int64)[inner].T
    return numbers, np.stack([begins[bounds[:-1]], ends[bounds[1:] - 1]], axis=1)


def _bounds(words: list[int], size: int) -> np.ndarray:
    """Where passages begin and the last one ends, in tokens: of even sizes, between words where there is a way."""
    bounds, length = [0], len(words)
    while (rest := length - bounds[-1]) > 0:
        begin = bounds[-1]
        end = begin + math.ceil(rest / math.ceil(rest / size))
        between = end
        while begin < between < length and words[between] == words[between - 1]:
            between -= 1
        bounds.append(between if between > begin else end)
    return np.array(bounds)


def _in_original(text: str, offsets: np.ndarray) -> np.ndarray:
    """Offsets into a text from those into `clean(text)`, where a pair of surrogates is one character."""
    pairs = [match.start() - i for i, match in enumerate(_SURROGATE_PAIR.finditer(text))]
    return offsets + np.searchsorted(pairs, offsets)
