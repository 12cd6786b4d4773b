"""What a DeltaNet layer does between its two projections, in one pass over each head: inference on the CPU.

Activation, norms, gates, both directions and their sum would else go through memory one after the other, and wait for
all threads each time. A head's tokens come from the projection and go to the next as float32 or bfloat16; between, all
is float32.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

from .delta_rule_cpu import (
    Vectors,
    aligned,
    begin,
    compiled,
    foretell,
    intrinsic,
    ir,
    numba,
    over_heads,
    read_token,
    take,
    to_numpy,
    types,
)  # fmt: skip
from .directions import State

_LANES = 32  # gates worked on together


class _Floats(Vectors):
    """Vectors of float32, which in memory may be bfloat16 (arrays of int16), and functions of them."""

    def __init__(self, context, builder, arguments, values, lanes):
        super().__init__(context, builder, arguments, values, types.float32, lanes)
        self.bits = ir.VectorType(ir.IntType(32), lanes)
        self.halves = ir.VectorType(ir.IntType(16), lanes)

    def const(self, number):
        return self.spread(ir.Constant(self.scalar, number))

    def const_bits(self, number):
        return ir.Constant(self.bits, [number] * self.bits.count)

    def read(self, array, at):
        data = self.pointer(array, at)
        if self.arguments[array].dtype != types.int16:
            return self.load(data)
        halves = self.builder.load(self.builder.bitcast(data, self.halves.as_pointer()))
        halves.align = 2
        bits = self.builder.shl(self.builder.zext(halves, self.bits), self.const_bits(16))
        return self.builder.bitcast(bits, self.type)

    def write(self, x, array, at):
        data, build = self.pointer(array, at), self.builder
        if self.arguments[array].dtype != types.int16:
            return self.store(x, data)
        bits = build.bitcast(x, self.bits)  # to the nearest, of two the even one
        odd = build.and_(build.lshr(bits, self.const_bits(16)), self.const_bits(1))
        bits = build.add(build.add(bits, odd), self.const_bits(0x7FFF))
        halves = build.trunc(build.lshr(bits, self.const_bits(16)), self.halves)
        build.store(halves, build.bitcast(data, self.halves.as_pointer())).align = 2

    def over(self, x, y):
        return self.builder.fdiv(x, y)

    def copy(self, x):
        return x

    def exp(self, x):
        """To 2 units in the last place (the polynomial of Cephes' `expf`); at most 1e38."""
        build = self.builder
        for comparison, bound in (("<", 88.0), (">", -87.0)):  # also where x is not a number
            x = build.select(build.fcmp_ordered(comparison, x, self.const(bound)), x, self.const(bound))
        magic = self.const(1.5 * 2**23)  # added, it rounds to an integer
        turns = build.fsub(build.fadd(build.fmul(x, self.const(1 / np.log(2))), magic), magic)
        r = self.minus(x, self.times(turns, self.const(0.693359375)))
        r = self.minus(r, self.times(turns, self.const(-2.12194440e-4)))
        y = self.const(1.9875691500e-4)
        for factor in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1, 1.0, 1.0):
            y = self.plus(self.times(y, r), self.const(factor))
        exponent = build.add(build.fptosi(turns, self.bits), self.const_bits(127))
        return self.times(y, build.bitcast(build.shl(exponent, self.const_bits(23)), self.type))

    def sigmoid(self, x):
        return self.over(self.const(1.0), self.plus(self.const(1.0), self.exp(self.minus(self.zero, x))))

    def unit_silu(self, x):
        """SiLU, then unit length as by `F.normalize`."""
        x = self.times(x, self.sigmoid(x))
        square = self.sum(self.times(x, x))
        signature = ir.FunctionType(self.scalar, [self.scalar])
        root = self.builder.call(self.builder.module.declare_intrinsic("llvm.sqrt.f32", (), signature), [square])
        least = ir.Constant(self.scalar, 1e-12)
        norm = self.builder.select(self.builder.fcmp_ordered("<", root, least), least, root)
        return self.over(x, self.spread(norm))


@intrinsic(prefer_literal=True)
def _apply(_context, function, lanes, source, source_at, target, target_at):
    """Set `lanes` numbers of the target to a function, a method of `_Floats`, of as many of the source."""
    arguments = dict(locals())
    del arguments["_context"]

    def generate(context, builder, _, values):
        at = _Floats(context, builder, arguments, values, lanes.literal_value)
        at.write(getattr(at, function.literal_value)(at.read("source", "source_at")), "target", "target_at")
        return context.get_dummy_value()

    return types.void(*arguments.values()), generate


@intrinsic(prefer_literal=True)
def _add(_context, lanes, scale, one, other, at, target, target_at):
    """Set `lanes` numbers of the target to the sum of those of two arrays, scaled."""
    arguments = dict(locals())
    del arguments["_context"]

    def generate(context, builder, _, values):
        v = _Floats(context, builder, arguments, values, lanes.literal_value)
        total = v.plus(v.read("one", "at"), v.read("other", "at"))
        v.write(v.times(v.spread(v.values["scale"]), total), "target", "target_at")
        return context.get_dummy_value()

    return types.void(*arguments.values()), generate


@cache
def _kernel(width: int) -> Callable[..., None]:
    """For heads of so many numbers, known to the compiler."""

    @compiled
    def delta_net(projected, mask, breaks, scale, carry, beginning, last, mixed, next_beginning, next_last, taken):
        batch, length = mask.shape
        heads = len(scale)
        size = heads * width
        row = 3 * size + 4 * heads
        p = np.empty(width, np.float32)
        leftward_state = aligned(1, width, width, next_last)[0]
        scratch = aligned(5, length, width, next_last).reshape(5, length * width)
        query, key, value, rightwards, leftwards = scratch[0], scratch[1], scratch[2], scratch[3], scratch[4]
        gates = np.empty((4, -(-length // _LANES) * _LANES), np.float32)
        beta, reverse_beta, decay, reverse_decay = gates[0], gates[1], gates[2], gates[3]
        while True:
            task = take(taken)
            if task >= batch * heads:
                return
            n, h = task // heads, task % heads
            for t in range(length):
                begins = (n * length + t) * row + h * width
                _apply("unit_silu", width, projected, begins, query, t * width)
                _apply("unit_silu", width, projected, begins + size, key, t * width)
                _apply("copy", width, projected, begins + 2 * size, value, t * width)
                for gate in range(4):
                    begins = (n * length + t) * row + 3 * size + gate * heads + h
                    _apply("copy", 1, projected, begins, gates[gate], t)
            for i in range(0, gates.size, _LANES):
                _apply("sigmoid", _LANES, gates, i, gates, i)
            for t in range(length):
                if not mask[n, t]:  # a pad writes nothing and forgets nothing
                    gates[:2, t], gates[2:, t] = 0, 1

            B, S = next_beginning[n, h], next_last[n, h]
            known = last.size > 0  # whether there was a beginning
            begin(S, p, last, n, h, key, 0)
            if known:
                B[:] = beginning[n, h]
                if mask[n, 0]:
                    _start(B, S, carry[0, h], carry[1, h], p, key, 0)
            for t in range(length):
                at, then = t * width, min(t + 1, length - 1) * width
                if breaks.size and breaks[n, t]:
                    if not known:
                        B[:] = S
                        known = True
                    _start(B, S, carry[0, h], carry[1, h], p, key, at)
                read_token(
                    width, width, False, S, S, p, query, at, key, at, then, value, at, beta[t], decay[t], rightwards, at
                )
            if not known:
                B[:] = S
            S = leftward_state
            S[:] = 0
            p[:] = 0
            for t in range(length - 1, -1, -1):
                at, then = t * width, max(t - 1, 0) * width
                read_token(
                    width, width, True, S, S, p, query, at, key, at, then, value, at, reverse_beta[t], reverse_decay[t],
                    leftwards, at,
                )  # fmt: skip
                if breaks.size and breaks[n, t]:
                    S[:] = 0
                    p[:] = 0
            for t in range(length):
                begins = ((n * length + t) * heads + h) * width
                _add(width, scale[h], rightwards, leftwards, t * width, mixed, begins)

    return delta_net


@numba.njit(nogil=True)
def _start(B, S, of_beginning, of_last, p, key, key_at):
    """Make of a head's last state the mixture that a part starts from, and what it foretells of the part's token."""
    for i in range(S.shape[0]):
        for j in range(S.shape[1]):
            S[i, j] = of_beginning * B[i, j] + of_last * S[i, j]
    foretell(S, key, key_at, p)


def fused_delta_net(
    projected: Tensor,
    mask: Tensor,
    scale: Tensor,
    state: State | None,
    carry: Tensor,
    breaks: Tensor | None,
) -> tuple[Tensor, State]:
    """From the projection of a layer's input to the input of its second one.

    Args:
        projected: queries, keys and values, then for each head both directions' logits of beta and of the decay:
            (batch, length, 3 size + 4 heads), float32 or bfloat16.
        mask: (batch, length), 0 for pads.
        scale: (heads).
        state, carry, breaks: as for `both_directions`.

    Returns:
        (batch, length, size) of the projection's dtype, and the state to go on from.
    """
    batch, length, _ = projected.shape
    heads = len(scale)
    size = (projected.shape[-1] - 4 * heads) // 3
    mixed = projected.new_empty(batch, length, size)
    shape = (batch, heads, size // heads, size // heads)
    after = State(*(mixed.new_empty(shape, dtype=torch.float32) for _ in range(2)))
    # Empty stands for no state and no break.
    before = State(after.last[:0], after.last[:0]) if state is None else state
    breaks = mask.new_empty(0, 0) if breaks is None else breaks
    given = (x.float().contiguous() for x in (mask, breaks, scale, carry, *before))
    arrays = (_flat(projected), *map(to_numpy, given), _flat(mixed), *map(to_numpy, after))
    over_heads(_kernel(size // heads), batch, length, heads, *arrays)
    return mixed, after


def _flat(x: Tensor) -> np.ndarray:
    x = x.contiguous().view(-1)
    return to_numpy(x.view(torch.int16) if x.dtype == torch.bfloat16 else x)
