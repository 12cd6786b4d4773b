"""A model of which a part of what it carries is taken away, to measure what it is worth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def carrying(model: nn.Module, beginning: bool = False, last: bool = False) -> Iterator[None]:
    """For a while, blocks and passages start from the states that are named alone; by default from none.

    Args:
        model: in torch.
        beginning: the state that the text's beginning left.
        last: the state that the block or passage before left.
    """
    keeps = torch.tensor([[beginning], [last]])
    factors = [parameter for name, parameter in model.named_parameters() if name.endswith("delta_net.carry")]
    before = [parameter.detach().clone() for parameter in factors]
    with torch.no_grad():
        for parameter in factors:
            parameter.mul_(keeps.to(parameter.device))
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, kept in zip(factors, before, strict=True):
                parameter.copy_(kept)
