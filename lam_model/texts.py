"""What may be embedded: a string or a list of strings. Tables and mappings are refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any, overload


def check(texts: Any) -> str | list[str]:
    """A text or a list of texts, as they are.

    Raises:
        TypeError: something is not a string.
    """
    if isinstance(texts, str):
        return texts
    kind = type(texts).__name__
    if hasattr(texts, "columns") or hasattr(texts, "column_names"):  # iterating would give the columns' names
        raise TypeError(f"LAM embeds a string or a list of strings, not a {kind}: give one column, such as df['text']")
    if isinstance(texts, Mapping):
        raise TypeError(f"LAM embeds a string or a list of strings, not a {kind}: give list(mapping.values())")
    if isinstance(texts, Set):
        raise TypeError(f"LAM embeds a string or a list of strings, not a {kind}, which has no order: give a list")
    if isinstance(texts, bytes) or not hasattr(texts, "__iter__") or getattr(texts, "ndim", 1) != 1:
        raise TypeError(f"LAM embeds a string or a list of strings, not {kind}")
    texts = list(texts)
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"LAM embeds strings: the item at index {i} is {type(text).__name__} ({text!r:.60})")
    return texts


@overload
def clean(texts: str) -> str: ...  # type: ignore[overload-overlap]  # a str is a sequence of them too


@overload
def clean(texts: Sequence[str]) -> list[str]: ...


def clean(texts: Any) -> str | list[str]:
    """A text or a list of texts, checked; a lone surrogate, which no tokenizer takes, becomes U+FFFD.

    Raises:
        TypeError: something is not a string.
    """
    texts = check(texts)
    return _whole_characters(texts) if isinstance(texts, str) else list(map(_whole_characters, texts))


def _whole_characters(text: str) -> str:
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
