"""Several processes that train one model, as `accelerate launch` or `torchrun` starts them.

All have each batch whole. Each reads a share of its texts, their vectors are put together, and every process computes
the loss of the whole batch, with gradients to its own texts alone. The sum of these gradients is that of one process.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, distributed, nn

_PATIENCE = timedelta(days=1)  # of those that wait while the first evaluates or mines
Result = TypeVar("Result")


def join(device: str | None) -> None:
    """Join the other processes, if there are any; from then on only the first writes to stdout."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        from accelerate import PartialState

        PartialState(cpu=device == "cpu", timeout=_PATIENCE)
        if index():
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def count() -> int:
    """The number of processes."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def index() -> int:
    """The number of this process, from 0: the first evaluates and writes."""
    return distributed.get_rank() if count() > 1 else 0


@contextmanager
def in_turn() -> Iterator[None]:
    """Let the first process go through, then the others, which find what it has left in files."""
    if index():
        distributed.barrier()
    yield
    if count() > 1 and not index():
        distributed.barrier()


def by_first(make: Callable[[], Result]) -> Result:
    """What `make` gives to the first process, which alone calls it."""
    if count() == 1:
        return make()
    made: list[Any] = [None if index() else make()]
    distributed.broadcast_object_list(made)
    return made[0]


class Share(NamedTuple):
    """The texts of a batch that this process reads.

    Args:
        rows: their numbers; none if there are fewer texts than processes.
        read: the same, or one text to read for nothing, for no model reads none.
        texts: how many the batch has.
    """

    rows: list[int]
    read: list[int]
    texts: int


def share(texts: int) -> Share:
    """This process's share of so many texts."""
    rows = list(range(index(), texts, count()))
    return Share(rows, rows or [0], texts)


def together(own: Tensor, share: Share) -> Tensor:
    """The vectors of a batch's texts, with gradients to one's own alone.

    Args:
        own: those of the texts that this process reads.
    """
    if count() == 1:
        return own
    own, places = own[: len(share.rows)], torch.tensor(share.rows, dtype=torch.long, device=own.device)
    whole = own.new_zeros(share.texts, *own.shape[1:]).index_copy(0, places, own.detach())
    distributed.all_reduce(whole)
    return whole.index_copy(0, places, own)


def summed(own: Tensor) -> Tensor:
    """The sum over all processes, with gradients to one's own term alone."""
    if count() == 1:
        return own
    whole = own.detach().clone()
    distributed.all_reduce(whole)
    return own + (whole - own.detach())


def add_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Give every process the sum of all processes' gradients."""
    if count() == 1:
        return
    some = list(parameters)
    used = torch.tensor([float(p.grad is not None) for p in some], device=some[0].device)
    distributed.all_reduce(used)
    some = [p for p, by_any in zip(some, used.tolist(), strict=True) if by_any]
    sums = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in some])
    distributed.all_reduce(sums)
    for parameter, gradient in zip(some, sums.split([p.numel() for p in some]), strict=True):
        parameter.grad = gradient.view_as(parameter)


class OneBatch:
    """Before a `Trainer` among the bases: its processes have each batch whole, and add their gradients."""

    model: Any

    def get_train_dataloader(self) -> Any:
        """As the library's, without its sharding of batches."""
        loader = super().get_train_dataloader()  # type: ignore[misc]
        if count() > 1:
            loader.batch_sampler.num_processes, loader.batch_sampler.process_index = 1, 0
        return loader

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """As the library's, and adds the gradients up."""
        loss = super().training_step(*args, **kwargs)  # type: ignore[misc]
        add_gradients(p for p in self.model.parameters() if p.requires_grad)
        return loss
