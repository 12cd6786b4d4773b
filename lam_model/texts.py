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
    texts = _listed(texts)
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"LAM embeds strings: the item at index {i} is {type(text).__name__} ({text!r:.60})")
    return texts


def check_documents(documents: Any) -> list[str | list[str]]:
    """Documents as a list of texts and of lists of passages.

    Raises:
        TypeError: a document is neither; the message says at which index, and in which passage.
    """
    found: list[str | list[str]] = []
    for i, document in enumerate(_listed(documents)):
        if isinstance(document, str):
            found.append(document)
            continue
        if not isinstance(document, Sequence):
            raise TypeError(
                f"the document at index {i} is {type(document).__name__} ({document!r:.60}): give a string, or a list "
                f"of its passages"
            )
        try:
            found.append([*check(document)])
        except TypeError as error:
            raise TypeError(f"the document at index {i}: {error}") from None
    return found


def _listed(texts: Any) -> list[Any]:
    kind = type(texts).__name__
    if hasattr(texts, "columns") or hasattr(texts, "column_names"):  # iterating would give the columns' names
        raise TypeError(f"LAM embeds a string or a list of strings, not a {kind}: give one column, such as df['text']")
    if isinstance(texts, Mapping):
        raise TypeError(f"LAM embeds a string or a list of strings, not a {kind}: give list(mapping.values())")
    if isinstance(texts, Set):
        raise TypeError(f"LAM embeds a string or a list of strings, not a {kind}, which has no order: give a list")
    if isinstance(texts, bytes) or not hasattr(texts, "__iter__") or getattr(texts, "ndim", 1) != 1:
        raise TypeError(f"LAM embeds a string or a list of strings, not {kind}")
    return list(texts)


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
