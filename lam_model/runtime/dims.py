"""The sizes that vectors can be cut to."""

from __future__ import annotations

_SMALL = (256, 128, 64)


def dims(own: int) -> tuple[int, ...]:
    """The sizes of a model's vectors: its own, and the smaller ones."""
    return (own, *(small for small in _SMALL if small < own))


def check_dim(name: str, dim: int, dims: tuple[int, ...]) -> None:
    """Refuse a size that vectors do not have.

    Raises:
        ValueError: naming the argument and the sizes.
    """
    if dim not in dims:
        raise ValueError(f"{name} is {dim!r}: vectors have {', '.join(map(str, dims[:-1]))} or {dims[-1]} numbers")
