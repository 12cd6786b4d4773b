"""A tokenizer for any number of threads: transformers' own changes its settings from call to call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from tokenizers import Tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_COPIES: WeakKeyDictionary[PreTrainedTokenizerFast, tuple[Any, Tokenizer]] = WeakKeyDictionary()


def plain_tokenizer(tokenizer: PreTrainedTokenizerFast) -> Tokenizer:
    """A copy that neither cuts nor pads, and that nobody changes.

    It is made once, and again when tokens were added or a step was replaced.
    """
    own = tokenizer.backend_tokenizer
    steps = (own.normalizer, own.pre_tokenizer, own.post_processor, tokenizer.added_tokens_decoder)
    version = (id(own), len(tokenizer), *map(str, steps))
    known, copy = _COPIES.get(tokenizer, (None, None))
    if copy is None or known != version:
        copy = unlimited(Tokenizer.from_str(own.to_str()))
        _COPIES[tokenizer] = version, copy
    return copy


def unlimited(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer, made to neither cut nor pad: a file may say otherwise, as one that a trainer saved does."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
