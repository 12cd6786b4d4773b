"""LAM on ONNX Runtime, without torch and transformers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, overload

import numpy as np
from tokenizers import Tokenizer

from .. import __version__
from ..model.batching import CPU, alike
from ..reading.cutting import PASSAGE_TOKENS
from ..reading.passages import Document, Passages, Spans, encode_passages
from ..reading.reader import State
from ..reading.tokenizing import unlimited
from ..texts import clean
from . import onnx_source as source
from .dims import check_dim, dims
from .onnx_session import OnnxSession

DTYPES = ("float32", "int8")


class OnnxEncoder:
    """Texts of any length to unit vectors, read block by block in constant memory.

    Args:
        folder: a model folder; the packaged weights if None.
        file: a graph within the folder, in place of the one that `dtype` and `base_only` name.
        threads: of one call, within operators; all cores if None. Any number of callers may share one encoder.
        checked: compare the graph with the folder's manifest; one that is still being written is not in it.
        dtype: "float32", or "int8", which is faster and not quite as exact.
        base_only: without the DeltaNet layers.
        dim: size of the vectors: their own (384), or 256, 128 or 64.

    Raises:
        FileNotFoundError: naming the file that is missing.
        ValueError: naming the file that was altered or damaged, or the argument that is none of its choices.
    """

    def __init__(
        self,
        folder: str | Path | None = None,
        file: str | None = None,
        threads: int | None = None,
        checked: bool = True,
        *,
        dtype: str = "float32",
        base_only: bool = False,
        dim: int | None = None,
    ) -> None:
        if dtype not in DTYPES:
            raise ValueError(f"dtype is {dtype!r}: it must be one of {', '.join(DTYPES)}")
        self._again = partial(type(self), folder, file, threads, checked, dtype=dtype, base_only=base_only, dim=dim)
        if file is not None:
            made = source.in_folder(Path(folder or "."), file, checked)
        elif folder is not None:
            made = source.of_folder(Path(folder), base_only, dtype == "int8")
        else:
            made = source.packaged(base_only, dtype == "int8")
        self._session = OnnxSession(made.graph, made.tensors, threads)
        if "past_count" not in self._session.inputs:
            raise ValueError(
                f"{made.graph} reads whole texts at once: give the graph of a block, such as onnx/step.onnx"
            )
        self._states = [name for name in self._session.inputs if name.startswith("past_state_")]
        self._pad: int = made.config["pad_token_id"]
        self.tokenizer = unlimited(Tokenizer.from_file(str(made.tokenizer)))
        self.block_size: int = made.config["block_size"]
        self.dimension: int = made.config["hidden_size"]
        self.weights: str | None = made.made_of["deltanet_sha256"]
        self.dims = dims(self.dimension)
        if dim is not None:
            check_dim("dim", dim, self.dims)
        self.truncate_dim = dim
        self.key = hashlib.sha256(json.dumps([__version__, dim, sorted(made.made_of.items())]).encode()).hexdigest()

    def encode(self, texts: str | Sequence[str], batch_tokens: int = CPU["most"]) -> np.ndarray:
        """Embed a text or texts.

        Args:
            texts: one string, or several.
            batch_tokens: most tokens that are read together, pads counted; a block of one text at least.

        Returns:
            Unit vectors, float32: (dim,) for a string, (texts, dim) for several.

        Raises:
            TypeError: something is not a string; the message says what, and at which index.
        """
        texts = clean(texts)
        if isinstance(texts, str):
            return self.encode([texts], batch_tokens)[0]
        vectors = np.empty((len(texts), self.truncate_dim or self.dimension), np.float32)
        tokens = self.tokenize(texts)
        order = sorted(range(len(texts)), key=lambda i: -len(tokens[i]))
        blocks = [min(len(tokens[i]), self.block_size) for i in order]
        for group in alike(blocks, **CPU | {"most": batch_tokens}):
            vectors[order[group]] = self.embed_tokens([tokens[i] for i in order[group]], batch_tokens)
        return vectors

    @overload
    def encode_passages(  # type: ignore[overload-overlap]  # a str is a sequence of them too
        self,
        texts: str,
        size: int = ...,
        batch_size: int = ...,
        *,
        title: str | None = ...,
        spans: Spans | None = ...,
        context: bool = ...,
    ) -> Passages: ...

    @overload
    def encode_passages(
        self,
        texts: Sequence[Document],
        size: int = ...,
        batch_size: int = ...,
        *,
        title: Sequence[str | None] | None = ...,
        spans: Sequence[Spans] | None = ...,
        context: bool = ...,
    ) -> list[Passages]: ...

    def encode_passages(
        self,
        texts: Any,
        size: int = PASSAGE_TOKENS,
        batch_size: int = 8,
        *,
        title: Any = None,
        spans: Any = None,
        context: bool = True,
    ) -> Passages | list[Passages]:
        """Embed documents and their passages in one pass, so that a passage knows its document.

        How texts are cut and read: see `lam_model.reading.passages.encode_passages`.

        Args:
            texts: one text, or several documents: each is a text, or a list of its passages in order.
            size: most tokens of a passage that is cut here.
            batch_size: documents that are read together, a block of each at a time.
            title: of the text, or one for each document, None where it is not known apart from the text.
            spans: of the text, or of each document: the characters where its passages begin and end, instead of `size`.
            context: whether passages know their document; if not, each has the vector that `encode` gives of its text.

        Returns:
            For each document `Passages`: `vector` (size,), the mean over the tokens of all its passages, which is that
            of `encode` if there is one at most and no title; `vectors` (passages, size); and `offsets` (passages, 2),
            the characters where they begin and end, of the text or of the passages joined.

        Raises:
            TypeError: something is not a string, or not a pair of integers; the message says where.
            ValueError: an argument is out of range or does not fit the documents; the message says which, and where.
        """
        if isinstance(texts, str):
            one = {"title": None if title is None else [title], "spans": None if spans is None else [spans]}
            return self.encode_passages([texts], size, batch_size, context=context, **one)[0]
        dim = self.truncate_dim
        return encode_passages(self, texts, size, batch_size, dim=dim, titles=title, spans=spans, context=context)

    def tokenize(self, texts: Sequence[str], limit: int | None = None) -> list[list[int]]:
        """The token ids of each text, [CLS] and [SEP] among them; at most so many, if there is a limit."""
        tokens = [encoding.ids for encoding in self.tokenizer.encode_batch(texts)]
        if limit is None:
            return tokens
        return [ids if len(ids) <= limit else [*ids[: limit - 1], ids[-1]] for ids in tokens]

    def embed(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        """Unit vectors (texts, dim) of tokens that are padded on the right, each (texts, length)."""
        lengths = attention_mask.sum(1)
        return self.embed_tokens([ids[:length].tolist() for ids, length in zip(input_ids, lengths, strict=True)])

    def embed_tokens(self, tokens: Sequence[Sequence[int]], batch_tokens: int = CPU["most"]) -> np.ndarray:
        """Unit vectors (texts, dim) of the token ids of texts, read block by block."""
        totals = np.zeros((len(tokens), self.dimension), np.float32)
        states: list[State] = [None] * len(tokens)
        size = self.block_size
        for start in range(0, max(map(len, tokens), default=0), size):
            left = {row: len(ids) - start for row, ids in enumerate(tokens) if len(ids) > start}
            for last in (False, True):
                rows = [row for row, length in left.items() if (length <= size) is last]
                blocks = [[tokens[row][start : start + size]] for row in rows]
                before = [states[row] for row in rows]
                sums, after = self.read(blocks, before, first=start == 0, last=last, batch_tokens=batch_tokens)
                for row, (total,), state in zip(rows, sums, after, strict=True):
                    totals[row] += total
                    states[row] = state
        totals = totals[:, : self.truncate_dim]
        return totals / np.linalg.norm(totals, axis=1, keepdims=True).clip(min=1e-12)

    def read(
        self,
        blocks: Sequence[Sequence[Sequence[int]]],
        states: Sequence[State],
        first: bool,
        last: bool = False,
        batch_tokens: int = CPU["most"],
    ) -> tuple[list[np.ndarray], list[State]]:
        """See `lam_model.reading.reader.Reader`; the parts of a block are read one after another.

        Args:
            last: whether the texts end here: nobody will ask for their states.
            batch_tokens: as for `encode`.
        """
        sums = [np.empty((len(parts), self.dimension), np.float32) for parts in blocks]
        states = list(states)
        for number in range(max(map(len, blocks), default=0)):
            rows = [row for row, parts in enumerate(blocks) if number < len(parts)]
            rows.sort(key=lambda row: -len(blocks[row][number]))
            for group in alike([len(blocks[row][number]) for row in rows], **CPU | {"most": batch_tokens}):
                some = rows[group]
                inputs = self._padded([blocks[row][number] for row in some])
                if states[some[0]] is not None:
                    inputs |= self._past([states[row] for row in some])
                if not first:
                    inputs["past_count"] = np.ones((len(some), 1), np.float32)  # the text has begun before
                goes_on = not last or any(number + 1 < len(blocks[row]) for row in some)
                carried = [name.replace("past", "present") for name in self._states if goes_on]
                found, *after = self._session.run(["present_sum", *carried], inputs)
                for i, row in enumerate(some):
                    sums[row][number] = found[i]
                    states[row] = _after(states[row], [state[i] for state in after])
        return sums, states

    def array(self, x: Any) -> np.ndarray:
        """See `lam_model.reading.reader.Reader`."""
        return np.asarray(x)

    def _past(self, states: Sequence[State]) -> dict[str, np.ndarray]:
        both = np.stack(states, axis=2)  # (layers, 2, texts, ...)
        past: dict[str, np.ndarray] = {}
        for name, (beginning, last) in zip(self._states, both, strict=True):
            past |= {name.replace("state", "beginning"): beginning, name: last}
        return past

    def _padded(self, rows: list[Sequence[int]]) -> dict[str, np.ndarray]:
        ids = np.full((len(rows), max(map(len, rows))), self._pad, np.int64)
        mask = np.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)], mask[i, : len(row)] = row, 1
        return {"input_ids": ids, "attention_mask": mask} | self._session.zeros(len(rows))

    def __reduce__(self) -> tuple[Any, ...]:
        return self._again, ()


def _after(state: State, layers: list[np.ndarray]) -> State:
    """What has been read after a part, from what had been read before it."""
    if not layers:
        return None
    last = np.stack(layers)
    return np.stack([last if state is None else state[:, 0], last], axis=1)
