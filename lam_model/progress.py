"""Progress of long work on stderr: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

_SECONDS = 30.0  # between two lines


def progress(iterable: Iterable[Any] | None = None, **options: Any) -> tqdm:
    """A tqdm bar where stderr is a terminal. Elsewhere a line about every 30 seconds, and none for shorter work.

    Args:
        iterable, options: as for `tqdm`.
    """
    return (tqdm if sys.stderr.isatty() else _Lines)(iterable, **options)


class _Lines(tqdm):
    """Writes a line in place of drawing a bar, however often it is asked to draw."""

    _due = math.inf  # when the next line is to be written

    def __init__(self, iterable: Iterable[Any] | None, **options: Any):
        super().__init__(iterable, **options | {"ncols": 0, "leave": False})  # no bar in the line, nothing at the end
        self._due = self.start_t + _SECONDS

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        now = self._time()
        if msg is None and now >= self._due:
            self._due = now + _SECONDS
            self.fp.write(f"{self}\n")
            self.fp.flush()
        return False  # there is nothing to be wiped out

    def clear(self, nolock: bool = False) -> None:
        """Nothing is drawn that other output would have to go around."""
