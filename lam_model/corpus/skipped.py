"""A list of the rows that were left out, in a file."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TextIO

from ..files import replacing


class SkippedRows:
    """Writes rows of `where` and `why` to a .jsonl file, which is there in the end if there are any.

    Args:
        path: of the file; one that is there is removed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: TextIO | None = None
        self._closing = ExitStack()

    def __call__(self, where: str, why: Exception) -> None:
        """List a row."""
        if self._file is None:
            beside = self._closing.enter_context(replacing(self.path))
            self._file = self._closing.enter_context(beside.open("w", encoding="utf-8"))
        self._file.write(json.dumps({"where": where, "why": str(why)}) + "\n")

    def __enter__(self) -> SkippedRows:
        self.path.unlink(missing_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.__exit__(kind, error, trace)
