"""What may be embedded: strings, and nothing that only looks like one."""

from __future__ import annotations

from typing import Any


def check(texts: Any) -> str | list[str]:
    """A text or a list of texts, as they are.

    Raises:
        TypeError: something is not a string.
    """
    if isinstance(texts, str):
        return texts
    if isinstance(texts, (bytes, dict)) or not hasattr(texts, "__iter__"):
        raise TypeError(f"LAM embeds a string or a list of strings, not {type(texts).__name__}")
    texts = list(texts)
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"LAM embeds strings: the item at index {i} is {type(text).__name__} ({text!r:.60})")
    return texts


def clean(texts: Any) -> str | list[str]:
    """A text or a list of texts, checked; a lone surrogate, which no tokenizer takes, becomes U+FFFD.

    Raises:
        TypeError: something is not a string.
    """
    texts = check(texts)
    return _whole_characters(texts) if isinstance(texts, str) else list(map(_whole_characters, texts))


def _whole_characters(text: str) -> str:
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
