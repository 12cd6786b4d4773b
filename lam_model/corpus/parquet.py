"""pyarrow, which only parquet files need."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def pyarrow_and_parquet() -> tuple[Any, Any]:
    """The modules `pyarrow` and `pyarrow.parquet`.

    Raises:
        ModuleNotFoundError: they are not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("parquet files need pyarrow: pip install 'lam-model[parquet]'") from error
    return pyarrow, parquet


def choice(suffixes: Iterable[str]) -> str:
    """Suffixes in a sentence: ".txt, .jsonl or .parquet"."""
    *others, last = suffixes
    return f"{', '.join(others)} or {last}"
