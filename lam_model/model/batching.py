"""Which texts are read together: those of like length, so that few pads are computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

# Tokens that are read together at most, pads counted; and pads that are always allowed, for another pass over the
# weights would cost as much.
CPU = {"most": 1024, "spare": 64}
GPU = {"most": 65_536, "spare": 4096}
_SHARE = 16  # one pad for so many tokens is allowed too


def alike(lengths: Sequence[int], most: int, spare: int) -> Iterator[slice]:
    """Successive texts of like length, to be padded to the longest of them.

    Args:
        lengths: in tokens, the longest first.
        most, spare: as in `CPU` and `GPU`; a text of more tokens than `most` is read alone.

    Yields:
        Where in `lengths` they are, one group after another.
    """
    start = tokens = 0
    for end, length in enumerate(lengths):
        padded = (end + 1 - start) * lengths[start]
        pads = padded - tokens - length
        if end > start and (padded > most or pads > max(spare, (tokens + length) // _SHARE)):
            yield slice(start, end)
            start, tokens = end, 0
        tokens += length
    if lengths:
        yield slice(start, len(lengths))
