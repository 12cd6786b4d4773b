"""Both directions of the delta rule over a block, whose parts are read as if each were a block of its own.

Right to left, a part knows itself alone. Left to right, it starts from two states, each times a factor that is learned
for every layer and head: what the text's beginning left, its first part, and what the part before left. Both are of
one size, however long the text is.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .delta_rule import delta_rule, is_traced


class State(NamedTuple):
    """What a layer has read of a text, left to right: each (batch, heads, head size, head size), float32.

    Args:
        beginning: the state after the first part.
        last: the state after the last one.
    """

    beginning: Tensor
    last: Tensor


def both_directions(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    beta: tuple[Tensor, Tensor],
    log_decay: tuple[Tensor, Tensor],
    real: Tensor,
    state: State | None,
    carry: Tensor,
    breaks: Tensor | None,
) -> tuple[Tensor, State]:
    """The sum of both directions, and the state to go on from.

    Args:
        query, key, value: (batch, length, heads, head size), as for `delta_rule`.
        beta, log_decay: left to right, and right to left, each (batch, length, heads); both are 0 at pads.
        real: (batch, length), 0 at pads, which lie on the right.
        state: as returned for the block before; None where the text begins.
        carry: factors of the beginning's state and of the last one, (2, heads).
        breaks: (batch, length), true at the first token of each part but the block's first; one part if None.

    Returns:
        (batch, length, heads, head size), and the state.
    """
    read = _as_one_operator if is_traced() else _part_by_part
    return read(query, key, value, beta, log_decay, real, state, carry, breaks)


def _part_by_part(
    query: Tensor, key: Tensor, value: Tensor, beta: tuple[Tensor, Tensor], log_decay: tuple[Tensor, Tensor],
    real: Tensor, state: State | None, carry: Tensor, breaks: Tensor | None,
) -> tuple[Tensor, State]:  # fmt: skip
    if breaks is None:
        start = None if state is None else mixture(state, carry, real[:, 0])
        right, last = delta_rule(query, key, value, beta[0], log_decay[0], start)
        left, _ = delta_rule(query, key, value, beta[1], log_decay[1], reverse=True)
        return right + left, State(last if state is None else state.beginning, last)

    places, back = _places(breaks)
    row = torch.arange(len(breaks), device=breaks.device)[:, None]
    tokens = (query, key, value, *beta, *log_decay)
    q, k, v, *gates = (F.pad(x, (0, 0) * (x.ndim - 2) + (0, 1))[row[..., None], places] for x in tokens)
    begins = F.pad(real, (0, 1))[row, places[:, :, 0]]
    b_right, b_left, g_right, g_left = gates
    alone = [x.flatten(0, 1) for x in (q, k, v, b_left, g_left)]
    left, _ = delta_rule(alone[0], alone[1], alone[2], alone[3], alone[4], reverse=True)
    rights = []
    for begin, *part in zip(*(x.unbind(1) for x in (begins, q, k, v, b_right, g_right)), strict=True):
        start = None if state is None else mixture(state, carry, begin)
        right, last = delta_rule(part[0], part[1], part[2], part[3], part[4], start)
        rights.append(right)
        state = State(last if state is None else state.beginning, last)
    assert state is not None  # there is a part at least
    both = torch.cat(rights, dim=1) + left.unflatten(0, (len(breaks), -1)).flatten(1, 2)
    return both[row, back], state


def mixture(state: State, carry: Tensor, begins: Tensor) -> Tensor:
    """What a part starts from, (batch, heads, head size, head size): the last state itself where a text has ended.

    Args:
        begins: (batch,), 0 where a pad is the part's first token.
    """
    factor = carry[..., None, None]
    return torch.where(
        begins[:, None, None, None] > 0, factor[0] * state.beginning + factor[1] * state.last, state.last
    )


def _places(breaks: Tensor) -> tuple[Tensor, Tensor]:
    """Where the tokens of each part are, (batch, parts, longest), `length` for none; and where each token went."""
    batch, length = breaks.shape
    token = torch.arange(length, device=breaks.device)
    part = breaks.cumsum(1)
    within = token - torch.where(breaks, token, 0).cummax(1).values
    parts, longest = int(part.max()) + 1, int(within.max()) + 1
    places = part.new_full((batch, parts, longest), length)
    places[torch.arange(batch, device=breaks.device)[:, None], part, within] = token.expand(batch, -1)
    return places, part * longest + within


# Two operators for a compiler that looks on (`torch.compile`, `torch.export`, `torch.jit.trace`): it neither copies
# loops for every length nor looks into compiled code. Their names have this file's module in them, for a model folder
# brings the file too.
_OPERATORS = __name__.replace(".", "_")


def _as_one_operator(
    query: Tensor, key: Tensor, value: Tensor, beta: tuple[Tensor, Tensor], log_decay: tuple[Tensor, Tensor],
    real: Tensor, state: State | None, carry: Tensor, breaks: Tensor | None,
) -> tuple[Tensor, State]:  # fmt: skip
    nothing = query.new_zeros(query.shape[0], *query.shape[2:], value.shape[-1])
    known = State(nothing, nothing) if state is None else state
    breaks = real.new_zeros(real.shape, dtype=torch.bool) if breaks is None else breaks.expand(real.shape)
    numbers = (query, key, value, *beta, *log_decay, *known, carry)
    both, *after = opaque_directions(*numbers, real, breaks, state is None)
    return both, State(*after)


def _read(
    query: Tensor, key: Tensor, value: Tensor, beta_right: Tensor, beta_left: Tensor, decay_right: Tensor,
    decay_left: Tensor, beginning: Tensor, last: Tensor, carry: Tensor, real: Tensor, breaks: Tensor, fresh: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    state = None if fresh else State(beginning, last)
    gates = (beta_right, beta_left), (decay_right, decay_left)
    both, after = _part_by_part(query, key, value, *gates, real, state, carry, breaks)
    return both, *after


@torch.library.custom_op(f"{_OPERATORS}::both_directions", mutates_args=())
def opaque_directions(
    query: Tensor, key: Tensor, value: Tensor, beta_right: Tensor, beta_left: Tensor, decay_right: Tensor,
    decay_left: Tensor, beginning: Tensor, last: Tensor, carry: Tensor, real: Tensor, breaks: Tensor, fresh: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """`both_directions` as one operator."""
    numbers = (query, key, value, beta_right, beta_left, decay_right, decay_left, beginning, last, carry)
    both, beginning, last = _read(*numbers, real, breaks, fresh)
    return both.contiguous(), beginning.clone(), last.clone()  # the beginning may be an argument, or the last


@torch.library.custom_op(f"{_OPERATORS}::both_directions_backward", mutates_args=())
def _opaque_backward(
    query: Tensor, key: Tensor, value: Tensor, beta_right: Tensor, beta_left: Tensor, decay_right: Tensor,
    decay_left: Tensor, beginning: Tensor, last: Tensor, carry: Tensor, real: Tensor, breaks: Tensor, fresh: bool,
    d_both: Tensor, d_beginning: Tensor, d_last: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    numbers = (query, key, value, beta_right, beta_left, decay_right, decay_left, beginning, last, carry)

    def differentiate() -> tuple[Tensor, ...]:
        q, k, v, b_right, b_left, g_right, g_left, first, then, factors = inputs = [
            x.detach().requires_grad_() for x in numbers
        ]
        outputs = _read(q, k, v, b_right, b_left, g_right, g_left, first, then, factors, real, breaks, fresh)
        return torch.autograd.grad(outputs, inputs, (d_both, d_beginning, d_last), materialize_grads=True)

    with ThreadPoolExecutor(1) as another:  # within an operator, this thread records nothing to differentiate
        a, b, c, d, e, f, g, h, i, j = (x.contiguous() for x in another.submit(differentiate).result())
    return a, b, c, d, e, f, g, h, i, j


@opaque_directions.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, *others: Any) -> Any:
    state = value.new_empty(query.shape[0], *query.shape[2:], value.shape[-1])  # `len` would fix the batch
    return value.new_empty(value.shape), state, state.new_empty(state.shape)


@_opaque_backward.register_fake
def _(*arguments: Any) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in arguments[:10])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.fresh = inputs
    ctx.save_for_backward(*tensors)


def _gradients(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
    return *_opaque_backward(*ctx.saved_tensors, ctx.fresh, *gradients), None, None, None


opaque_directions.register_autograd(_gradients, setup_context=_keep)
