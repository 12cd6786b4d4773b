"""LAM as a `SentenceTransformer`, in a module by whose name tools recognise one (`str(type(model))`)."""

from __future__ import annotations

import hashlib
import json
import math
import threading
import warnings
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any, overload

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor
from transformers.tokenization_utils_base import TruncationStrategy
from transformers.utils import PaddingStrategy

from .. import __version__
from ..folder.manifest import NO_LIMIT
from ..reading.cutting import PASSAGE_TOKENS
from ..reading.passages import Document, Passages, Spans, encode_passages
from ..reading.reader import reader_of
from ..reading.tokenizing import plain_tokenizer
from ..reading.torch_reader import pools_the_mean
from ..texts import check_documents, clean
from .dims import check_dim

_VECTOR = "sentence_embedding"
_VECTORS_ONLY = ContextVar("_VECTORS_ONLY", default=False)  # whether nobody asks for the vectors of tokens
_COUNTING = threading.Lock()


class Lam(SentenceTransformer):
    """A `SentenceTransformer` that takes a text or a list of texts, and refuses tables and mappings.

    Its `manifest` says which weights it was built from; `truncated_texts` counts what a limit in `max_seq_length` has
    cut (there is none, unless it is set). Vectors of one of its smaller `dims` (`load(dim=...)`, or `truncate_dim`) are
    the first numbers of the whole ones, of unit length again.
    """

    manifest: dict[str, Any]
    dims: tuple[int, ...]
    on_truncate: str = "warn"
    truncated_texts: int = 0
    _warned_of: float | None = None  # the limit

    def encode(self, *args: Any, **kwargs: Any) -> Any:
        """As `SentenceTransformer.encode`.

        Raises:
            TypeError: something is not a string; the message says what, and at which index.
            ValueError: a text is longer than `max_seq_length`, of a model loaded with `on_truncate="error"`; or
                `truncate_dim` is none of `dims`.
        """
        dim = kwargs.get("truncate_dim") or self.truncate_dim
        if dim:
            check_dim("truncate_dim", dim, self.dims)
            kwargs["normalize_embeddings"] = True
        # The texts are called `sentences` before sentence-transformers 6 and `inputs` from there on.
        name = "inputs" if "inputs" in kwargs else "sentences"
        names = (name, "prompt_name", "prompt", "batch_size", "show_progress_bar", "output_value")
        named = dict(zip(names, args, strict=False)) | kwargs
        given: Any = named.get(name)
        texts = clean(given)
        prompt = named.get("prompt") or self.prompts.get(named.get("prompt_name") or self.default_prompt_name) or ""
        self._check_lengths([prompt + text for text in ([texts] if isinstance(texts, str) else texts)])
        vectors_only = _VECTORS_ONLY.set(named.get("output_value", _VECTOR) == _VECTOR)
        try:
            if args:
                return super().encode(texts, *args[1:], **kwargs)
            return super().encode(**{**kwargs, name: texts})
        finally:
            _VECTORS_ONLY.reset(vectors_only)

    def forward(self, input: dict[str, Tensor], **kwargs: Any) -> dict[str, Tensor]:
        """As `SentenceTransformer.forward`; but within `encode`, memory does not grow with the length of the texts."""
        lam: Any = getattr(self[0], "auto_model", None)
        mask = input["attention_mask"]
        several_blocks = lam is not None and mask.shape[1] > lam.config.block_size
        if not (several_blocks and _VECTORS_ONLY.get() and "prompt_length" not in input and pools_the_mean(self)):
            return super().forward(input, **kwargs)
        means = lam.mean(input["input_ids"], mask)[:, None]  # to be pooled as if each were a token
        features = {"token_embeddings": means, "attention_mask": mask.new_ones(means.shape[:2])}
        for module in list(self)[1:]:
            features = module(features)
        return features

    @property
    def key(self) -> str:
        """What tells this model's vectors from those of another; see `key_of`."""
        return key_of(self)

    @property
    def max_seq_length(self) -> int | float:
        """Most tokens of a text, [CLS] and [SEP] counted; infinity means that there is no limit."""
        limit = super().max_seq_length
        return math.inf if limit is None or limit >= NO_LIMIT else limit

    @max_seq_length.setter
    def max_seq_length(self, limit: float | None) -> None:
        self[0].max_seq_length = NO_LIMIT if limit is None or limit >= NO_LIMIT else limit
        self.settle_tokenizer()

    def get_max_seq_length(self) -> int:
        """As `max_seq_length`, but an integer in any case: chonkie would cut a text at 512 tokens for an infinity."""
        limit: int = self[0].max_seq_length
        return limit

    def settle_tokenizer(self) -> None:
        """Give the tokenizer the settings that `encode` would set, so that calls in several threads change nothing."""
        self.tokenizer.set_truncation_and_padding(
            padding_strategy=PaddingStrategy.LONGEST,
            truncation_strategy=TruncationStrategy.LONGEST_FIRST,
            max_length=self.tokenizer.model_max_length,
            stride=0,
            pad_to_multiple_of=None,
            padding_side=None,
        )

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
        documents = check_documents(texts)
        self._check_lengths([clean(one if isinstance(one, str) else " ".join(one)) for one in documents])
        self.eval()
        reader, limit, dim = reader_of(self), self.max_seq_length, self.truncate_dim
        return encode_passages(reader, documents, size, batch_size, limit, dim, title, spans, context)

    def _check_lengths(self, texts: list[str]) -> None:
        limit = self.max_seq_length
        if limit == math.inf:
            return
        tokenizer = plain_tokenizer(self.tokenizer)
        lengths: list[int] = []
        for start in range(0, len(texts), 1024):
            lengths += map(len, tokenizer.encode_batch(texts[start : start + 1024]))
        long = [i for i, length in enumerate(lengths) if length > limit]
        if not long:
            return
        if self.on_truncate == "error":
            raise ValueError(
                f"the text at index {long[0]} has {lengths[long[0]]} tokens, over max_seq_length={limit}: "
                f"raise the limit, or shorten the text"
            )
        with _COUNTING:
            self.truncated_texts += len(long)
            first, self._warned_of = self._warned_of != limit, limit
        if first:
            warnings.warn(
                f"{len(long)} of {len(texts)} texts are longer than max_seq_length={limit} tokens (the longest has "
                f"{max(lengths)}) and are cut there; later ones are only counted, in `truncated_texts`",
                stacklevel=3,
            )


# By this name, tools tell the kind of a model and its card shows how to load it.
Lam.__name__ = SentenceTransformer.__name__


def key_of(model: SentenceTransformer) -> str:
    """What tells a model's vectors from those of another: a sha256 over its weights and what else shapes them."""
    base_only = any(getattr(module, "base_only", False) for module in model.modules())
    digest = hashlib.sha256(json.dumps([__version__, model.max_seq_length, base_only, model.truncate_dim]).encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
