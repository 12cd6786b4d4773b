"""Blocks in parts: each part against the recurrence in float64, from the mixture that it starts from."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch.nn import functional as F

from lam_model.model.delta_rule import naive_delta_rule
from lam_model.model.directions import State, both_directions, opaque_directions

pytestmark = pytest.mark.usefixtures("empty_memory_is_nan")
HEADS, WIDTH = 2, 8
PARTS = {
    "one part": [[9], [6]],
    "of one token": [[1, 1, 1], [1]],
    "many": [[3, 1, 40, 7], [20, 30], [5]],
    "longer than a chunk": [[33, 70], [100]],
}


class Case(NamedTuple):
    """Texts in parts, as the arguments of `both_directions` in float64."""

    parts: list[list[int]]
    carried: bool

    def arguments(self) -> list:
        draw = torch.Generator().manual_seed(sum(map(sum, self.parts)))
        batch, length = len(self.parts), max(map(sum, self.parts))

        def normal(*shape):
            return torch.randn(*shape, dtype=torch.float64, generator=draw)

        tokens = (batch, length, HEADS)
        query, key = (F.normalize(F.silu(normal(*tokens, WIDTH)), dim=-1) for _ in range(2))
        real = torch.arange(length) < torch.tensor([sum(row) for row in self.parts])[:, None]
        breaks = torch.zeros(batch, length, dtype=torch.bool)
        for row, lengths in enumerate(self.parts):
            breaks[row, torch.tensor(lengths).cumsum(0)[:-1]] = True
        beta = tuple(normal(*tokens).sigmoid() * real[..., None] for _ in range(2))
        log_decay = tuple(F.logsigmoid(normal(*tokens) + 3) * real[..., None] for _ in range(2))
        state = State(*normal(2, batch, HEADS, WIDTH, WIDTH)) if self.carried else None
        carry = torch.rand(2, HEADS, dtype=torch.float64, generator=draw)
        return [query, key, normal(*tokens, WIDTH), beta, log_decay, real.long(), state, carry, breaks]


def expected(case: Case) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Part by part and text by text, on the recurrence."""
    query, key, value, beta, log_decay, _, state, carry, _ = case.arguments()
    both, beginnings, lasts = torch.zeros_like(value), [], []
    factors = carry[..., None, None]
    for row, lengths in enumerate(case.parts):
        beginning, last = (None, None) if state is None else (state.beginning[row], state.last[row])
        at = 0
        for length in lengths:
            part = [x[row : row + 1, at : at + length] for x in (query, key, value)]
            nothing = torch.zeros(1, HEADS, WIDTH, WIDTH, dtype=torch.float64)
            start = nothing if last is None else (factors[0] * beginning + factors[1] * last)[None]
            right, after = naive_delta_rule(
                *part, *(x[0][row : row + 1, at : at + length] for x in (beta, log_decay)), start
            )
            left, _ = naive_delta_rule(
                *part, *(x[1][row : row + 1, at : at + length] for x in (beta, log_decay)), nothing, reverse=True
            )
            both[row, at : at + length] = (right + left)[0]
            beginning, last = after[0] if last is None else beginning, after[0]
            at += length
        beginnings.append(beginning)
        lasts.append(last)
    return both, torch.stack(beginnings), torch.stack(lasts)


@pytest.mark.parametrize("carried", [False, True], ids=["fresh", "carried"])
@pytest.mark.parametrize("name", PARTS)
def test_each_part_starts_from_the_mixture_and_ends_from_right_to_left(name, carried):
    case = Case(PARTS[name], carried)
    *tensors, breaks = case.arguments()
    both, state = both_directions(*tensors, breaks)
    for found, wanted in zip((both, *state), expected(case), strict=True):
        real = case.arguments()[5][..., None, None] if found is both else 1
        torch.testing.assert_close(found * real, wanted)


def test_a_block_of_pads_leaves_the_state_as_it_is():
    query, key, value, beta, log_decay, real, state, carry, _ = Case([[4], [4]], True).arguments()
    beta, log_decay = (tuple(x * torch.tensor([1.0, 0.0])[:, None, None] for x in pair) for pair in (beta, log_decay))
    real[1] = 0
    for breaks in (None, torch.zeros_like(real, dtype=torch.bool)):
        _, after = both_directions(query, key, value, beta, log_decay, real, state, carry, breaks)
        assert torch.equal(after.last[1], state.last[1])
        assert not torch.equal(after.last[0], state.last[0])
        assert torch.equal(after.beginning, state.beginning)


def flat(arguments: list) -> list[torch.Tensor]:
    query, key, value, beta, log_decay, _, state, carry, _ = arguments
    nothing = torch.zeros(len(query), HEADS, WIDTH, WIDTH, dtype=torch.float64)
    return [query, key, value, *beta, *log_decay, *(state or (nothing, nothing.clone())), carry]


def loss(outputs) -> torch.Tensor:
    return sum(x.square().sum() for x in outputs)


@pytest.mark.parametrize("carried", [False, True], ids=["fresh", "carried"])
def test_the_operator_for_compilers_has_the_outputs_and_gradients_of_the_plain_form(carried):
    arguments = Case(PARTS["many"], carried).arguments()
    real, breaks = arguments[5], arguments[8]
    numbers = [x.requires_grad_() for x in flat(arguments)]
    found = opaque_directions(*numbers, real, breaks, not carried)
    q, k, v, b0, b1, d0, d1, beginning, last, carry = numbers
    both, state = both_directions(
        q, k, v, (b0, b1), (d0, d1), real, State(beginning, last) if carried else None, carry, breaks
    )
    for one, other in zip(found, (both, *state), strict=True):
        torch.testing.assert_close(one, other)
    gradients = (torch.autograd.grad(loss(x), numbers, materialize_grads=True) for x in (found, (both, *state)))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("compiler", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_without_a_break_and_gives_the_same(compiler):
    arguments = Case(PARTS["many"], True).arguments()
    compiled = torch.compile(both_directions, fullgraph=True, backend=compiler)
    for rule in (compiled, both_directions):
        both, state = rule(*arguments)
        torch.testing.assert_close(both, both_directions(*arguments)[0])
        torch.testing.assert_close(state.last, both_directions(*arguments)[1].last)
