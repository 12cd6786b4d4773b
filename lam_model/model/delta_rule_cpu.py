"""The gated delta rule on the CPU: loops over heads, compiled by numba, forward and backward.

A head's state (32 x 32 floats for MiniLM) stays in the first-level cache and is passed over once a token:
the pass that decays and writes also reads for the query and takes the next token's prediction. Heads are
independent, so they are shared out over torch's own threads; numba releases the GIL meanwhile.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

try:  # optional where transformers reads this file: `delta_rule` comes here only if numba is installed
    import numba
    from llvmlite import ir
    from numba import types
    from numba.extending import intrinsic
except ImportError as error:
    raise ImportError("the compiled CPU kernel needs numba: pip install numba") from error

_LANES = 32  # columns of the state worked on together, forward
_LINE = 64  # bytes
_THREAD_MIN = 1024  # tokens x heads under which a second thread costs more than it saves


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function compiled for its arguments; kept for the next process where there is a place to keep it."""
    try:
        kernel = numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # neither the package's folder nor the home can be written
        return numba.njit(nogil=True)(function)

    def run(*args: Any) -> Any:
        try:
            return kernel(*args)
        except OSError:  # compiled, but not kept, for the disk is full: a kernel itself opens no file
            return kernel(*args)

    return run


class Vectors:
    """LLVM's vectors of so many lanes, on the arguments of a numba intrinsic.

    numba's own loops keep their sums in memory, for arrays might overlap, and take twice as long.
    """

    def __init__(self, context, builder, arguments, values, dtype, lanes):
        """`arguments` are the intrinsic's, types by name, and `values` theirs, in the same order."""
        self.context, self.builder, self.arguments = context, builder, arguments
        self.values = dict(zip(arguments, values, strict=True))
        self.scalar = context.get_value_type(dtype)
        self.type = ir.VectorType(self.scalar, lanes)
        self.align = dtype.bitwidth // 8  # vectors may begin anywhere
        self.zero = ir.Constant(self.type, None)

    def pointer(self, array, at=None):
        """To the first number of an argument, or to the one that another argument counts to."""
        data = self.context.make_array(self.arguments[array])(self.context, self.builder, self.values[array]).data
        return data if at is None else self.builder.gep(data, [self.values[at]])

    def _at(self, data, i):
        return self.builder.gep(data, [ir.Constant(ir.IntType(64), i)])

    def load(self, data, i=0):
        loaded = self.builder.load(self.builder.bitcast(self._at(data, i), self.type.as_pointer()))
        loaded.align = self.align
        return loaded

    def store(self, x, data, i=0):
        self.builder.store(x, self.builder.bitcast(self._at(data, i), self.type.as_pointer())).align = self.align

    def number(self, data, i=0):
        return self.builder.load(self._at(data, i))

    def put(self, number, data, i=0):
        self.builder.store(number, self._at(data, i))

    def spread(self, number):
        index = ir.IntType(32)
        first = self.builder.insert_element(ir.Constant(self.type, ir.Undefined), number, ir.Constant(index, 0))
        return self.builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(index, self.type.count), None))

    def times(self, x, y):
        return self.builder.fmul(x, y, flags=["contract"])

    def plus(self, x, y):
        return self.builder.fadd(x, y, flags=["contract"])

    def minus(self, x, y):
        return self.builder.fsub(x, y, flags=["contract"])

    def sum(self, x):
        kind = {4: "f32", 8: "f64"}[self.align]
        signature = ir.FunctionType(self.scalar, [self.scalar, x.type])
        add = self.builder.module.declare_intrinsic(f"llvm.vector.reduce.fadd.v{x.type.count}{kind}", (), signature)
        return self.builder.call(add, [ir.Constant(self.scalar, 0.0), x], fastmath=["reassoc"])


@intrinsic(prefer_literal=True)
def read_token(
    _context, K, V, reverse, state, next_state, prediction,
    query, query_at, key, key_at, next_key_at, value, value_at, beta, decay, output, output_at,
):  # fmt: skip
    """One token of a head, from its state (K, V) to the next, which may be the same array.

    `prediction` (V) is what the state foretells of the token's value, and then of the next one's. In the flat arrays
    the token's vectors begin where the arguments named `_at` say.
    """
    arguments = dict(locals())
    del arguments["_context"]
    K, V, reverse = (x.literal_value for x in (K, V, reverse))

    def generate(context, builder, _, values):
        at = Vectors(context, builder, arguments, values, state.dtype, math.gcd(V, _LANES))
        S, S_next, p = map(at.pointer, ("state", "next_state", "prediction"))
        q, v, out = (at.pointer(name, f"{name}_at") for name in ("query", "value", "output"))
        k, k_next = at.pointer("key", "key_at"), at.pointer("key", "next_key_at")
        b, alpha = at.spread(at.values["beta"]), at.spread(at.values["decay"])
        for j in range(0, V, at.type.count):
            u = at.times(b, at.minus(at.load(v, j), at.times(alpha, at.load(p, j))))
            o_j = p_j = at.zero
            for i in range(K):
                k_i, q_i, k_next_i = (at.spread(at.number(x, i)) for x in (k, q, k_next))
                old = at.load(S, i * V + j)
                new = at.plus(at.times(k_i, u), at.times(alpha, old))
                o_j = at.plus(o_j, at.times(q_i, old if reverse else new))
                p_j = at.plus(p_j, at.times(k_next_i, new))
                at.store(new, S_next, i * V + j)
            at.store(o_j, out, j)
            at.store(p_j, p, j)
        return context.get_dummy_value()

    return types.void(*arguments.values()), generate


@intrinsic(prefer_literal=True)
def _token_gradients(
    _context, K, V, reverse, state, prediction, d_state, d_written,
    query, query_at, key, key_at, next_key_at, value, value_at, beta, decay, d_output, d_output_at,
    d_query, d_key, d_query_at, d_value, d_value_at, d_beta, d_log_decay, gate_at,
):  # fmt: skip
    """Back over one token of a head, whose state before it and prediction are known.

    `d_state` (K, V) and `d_written` (V), its product with the token's key, are of the state after the token, and then
    of the one before it and the next token on the way back.
    """
    arguments = dict(locals())
    del arguments["_context"]
    K, V, reverse = (x.literal_value for x in (K, V, reverse))

    def generate(context, builder, _, values):
        at = Vectors(context, builder, arguments, values, state.dtype, V)
        S, dS, e = map(at.pointer, ("state", "d_state", "d_written"))
        q, k, k_next = at.pointer("query", "query_at"), at.pointer("key", "key_at"), at.pointer("key", "next_key_at")
        p, v = at.load(at.pointer("prediction")), at.load(at.pointer("value", "value_at"))
        do = at.load(at.pointer("d_output", "d_output_at"))
        dq, dk = at.pointer("d_query", "d_query_at"), at.pointer("d_key", "d_query_at")
        b, alpha = at.spread(at.values["beta"]), at.spread(at.values["decay"])

        error = at.minus(v, at.times(alpha, p))
        u, du = at.times(b, error), at.load(e)
        if not reverse:  # the token has read what it wrote
            wide = Vectors(context, builder, arguments, values, state.dtype, K)
            q_k = at.spread(wide.sum(wide.times(wide.load(q), wide.load(k))))
            du = at.plus(du, at.times(q_k, do))
        d_v = at.times(b, du)
        dp = at.times(alpha, d_v)  # with the sign turned
        read = do if reverse else at.times(alpha, do)
        own = at.times(u, do)
        e_next = d_alpha = at.zero
        for i in range(K):
            q_i, k_i, k_next_i = (at.spread(at.number(x, i)) for x in (q, k, k_next))
            old, d = at.load(S, i * V), at.load(dS, i * V)
            dq_i = at.times(old, read)
            if not reverse:
                d = at.plus(d, at.times(q_i, do))
                dq_i = at.plus(dq_i, at.times(k_i, own))
            at.put(at.sum(dq_i), dq, i)
            at.put(at.sum(at.minus(at.times(d, u), at.times(old, dp))), dk, i)
            d_alpha = at.plus(d_alpha, at.times(old, d))
            d = at.minus(at.times(alpha, d), at.times(k_i, dp))
            if reverse:
                d = at.plus(d, at.times(q_i, do))
            e_next = at.plus(e_next, at.times(d, k_next_i))
            at.store(d, dS, i * V)
        at.store(e_next, e)
        at.store(d_v, at.pointer("d_value", "d_value_at"))
        at.put(at.sum(at.times(du, error)), at.pointer("d_beta", "gate_at"))
        d_alpha = at.sum(at.minus(d_alpha, at.times(p, d_v)))
        at.put(at.times(at.values["decay"], d_alpha), at.pointer("d_log_decay", "gate_at"))
        return context.get_dummy_value()

    return types.void(*arguments.values()), generate


@intrinsic
def take(_context, taken):
    """How many tasks other threads and this one have taken: the number of the next (an atomic addition)."""

    def generate(context, builder, _, values):
        counter = context.make_array(taken)(context, builder, values[0]).data
        return builder.atomic_rmw("add", counter, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(taken), generate


@cache
def _forward_kernel(K: int, V: int, reverse: bool) -> Callable[..., None]:
    """For key width K and value width V, known to the compiler."""

    @compiled
    def forward(query, key, value, strides, beta, decay, state, output, last_state, taken):
        batch, length, heads = beta.shape
        p = np.empty(V, last_state.dtype)
        while True:
            task = take(taken)
            if task >= batch * heads:
                return
            n, h = task // heads, task % heads
            query_0 = n * strides[0, 0] + h * strides[0, 2]
            key_0 = n * strides[1, 0] + h * strides[1, 2]
            value_0 = n * strides[2, 0] + h * strides[2, 2]
            S = last_state[n, h]
            begin(S, p, state, n, h, key, key_0 + (length - 1 if reverse else 0) * strides[1, 1])
            for s in range(length):
                t = length - 1 - s if reverse else s
                t_next = max(t - 1, 0) if reverse else min(t + 1, length - 1)
                read_token(
                    K, V, reverse, S, S, p,
                    query, query_0 + t * strides[0, 1],
                    key, key_0 + t * strides[1, 1], key_0 + t_next * strides[1, 1],
                    value, value_0 + t * strides[2, 1],
                    beta[n, t, h], decay[n, t, h],
                    output, ((n * length + t) * heads + h) * V,
                )  # fmt: skip

    return forward


@cache
def _backward_kernel(K: int, V: int, reverse: bool) -> Callable[..., None]:
    @compiled
    def backward(
        query, key, value, d_output, strides, beta, decay, state, d_state,
        d_query, d_key, d_value, d_beta, d_log_decay, taken,
    ):  # fmt: skip
        batch, length, heads = beta.shape
        dtype = d_state.dtype
        p, unread, e = np.empty(V, dtype), np.empty(V, dtype), np.empty(V, dtype)
        predictions = np.empty((length, V), dtype)
        states = aligned(length + 1, K, V, d_state)  # before each token, read anew: cheaper than kept
        while True:
            task = take(taken)
            if task >= batch * heads:
                return
            n, h = task // heads, task % heads
            query_0 = n * strides[0, 0] + h * strides[0, 2]
            key_0 = n * strides[1, 0] + h * strides[1, 2]
            value_0 = n * strides[2, 0] + h * strides[2, 2]
            d_output_0 = n * strides[3, 0] + h * strides[3, 2]
            begin(states[0], p, state, n, h, key, key_0 + (length - 1 if reverse else 0) * strides[1, 1])
            for s in range(length):
                t = length - 1 - s if reverse else s
                t_next = max(t - 1, 0) if reverse else min(t + 1, length - 1)
                predictions[s] = p
                read_token(
                    K, V, reverse, states[s], states[s + 1], p,
                    query, query_0 + t * strides[0, 1],
                    key, key_0 + t * strides[1, 1], key_0 + t_next * strides[1, 1],
                    value, value_0 + t * strides[2, 1],
                    beta[n, t, h], decay[n, t, h],
                    unread, 0,
                )  # fmt: skip
            dS = d_state[n, h]
            foretell(dS, key, key_0 + (0 if reverse else length - 1) * strides[1, 1], e)
            for s in range(length - 1, -1, -1):
                t = length - 1 - s if reverse else s
                t_next = min(t + 1, length - 1) if reverse else max(t - 1, 0)
                token = (n * length + t) * heads + h
                _token_gradients(
                    K, V, reverse, states[s], predictions[s], dS, e,
                    query, query_0 + t * strides[0, 1],
                    key, key_0 + t * strides[1, 1], key_0 + t_next * strides[1, 1],
                    value, value_0 + t * strides[2, 1],
                    beta[n, t, h], decay[n, t, h],
                    d_output, d_output_0 + t * strides[3, 1],
                    d_query, d_key, token * K, d_value, token * V, d_beta, d_log_decay, token,
                )  # fmt: skip

    return backward


@numba.njit(nogil=True)
def begin(S, p, state, n, h, key, key_at):
    """The state that a head begins with, zeros if there is none, and what it foretells of the first token."""
    S[:] = 0
    p[:] = 0
    if state.size:
        for i in range(S.shape[0]):
            for j in range(S.shape[1]):
                S[i, j] = state[n, h, i, j]
        foretell(S, key, key_at, p)


@numba.njit(nogil=True)
def foretell(S, key, key_at, p):
    """The state's product with a key."""
    p[:] = 0
    for i in range(S.shape[0]):
        for j in range(S.shape[1]):
            p[j] += S[i, j] * key[key_at + i]


@numba.njit(nogil=True)
def aligned(count, K, V, like):
    """An array (count, K, V) that begins with a cache line: a vector that lies across two takes twice as long."""
    memory = np.empty(count * K * V + _LINE // like.itemsize, like.dtype)
    first = np.int64(-memory.ctypes.data) % _LINE // like.itemsize
    return memory[first : first + count * K * V].reshape(count, K, V)


class _DeltaRule(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, value, beta, log_decay, state, reverse):
        batch, _, heads, width = value.shape
        ctx.has_state, ctx.reverse = state is not None, reverse
        state = query.new_empty(0, 0, 0, 0) if state is None else state  # to the kernels, empty stands for zeros
        decay = log_decay.exp()
        ctx.save_for_backward(query, key, value, beta, decay, state)
        output = torch.empty_like(value, memory_format=torch.contiguous_format)
        last_state = query.new_empty(batch, heads, query.shape[-1], width)
        kernel = _forward_kernel(*last_state.shape[2:], reverse)
        arrays = (*_flat(query, key, value), *map(to_numpy, (beta, decay, state, output.view(-1), last_state)))
        over_heads(kernel, *query.shape[:3], *arrays)
        return output, last_state

    @staticmethod
    def backward(ctx, d_output, d_state):
        query, key, value, *gates, state = ctx.saved_tensors
        d_state = d_state.clone(memory_format=torch.contiguous_format)
        grads = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in (query, key, value, *gates)]
        kernel = _backward_kernel(*d_state.shape[2:], ctx.reverse)
        results = (d_state, *(x.view(-1) for x in grads))
        arrays = (*_flat(query, key, value, d_output), *map(to_numpy, (*gates, state, *results)))
        over_heads(kernel, *query.shape[:3], *arrays)
        return *grads, d_state if ctx.has_state else None, None


def to_numpy(x: Tensor) -> np.ndarray:
    return x.detach().numpy()


def _flat(*tokens: Tensor) -> tuple[np.ndarray, ...]:
    """Each tensor's memory from its first number to its last, and all their strides by text, token and head."""
    tokens = [x if x.stride(-1) == 1 else x.contiguous() for x in tokens]
    spans = (1 + sum((n - 1) * step for n, step in zip(x.shape, x.stride(), strict=True)) for x in tokens)
    flat = [to_numpy(x.as_strided((span,), (1,))) for x, span in zip(tokens, spans, strict=True)]
    return *flat, np.array([x.stride()[:3] for x in tokens])


@torch.compiler.disable
def delta_rule(
    query: Tensor, key: Tensor, value: Tensor, beta: Tensor, log_decay: Tensor, state: Tensor | None, reverse: bool
) -> tuple[Tensor, Tensor]:
    return _DeltaRule.apply(query, key, value, beta, log_decay, state, reverse)


_shares = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@cache
def _openmp() -> ctypes.CDLL | None:
    """The OpenMP library whose threads torch uses, where it is GNU's: the one that torch has made global."""
    if not sys.platform.startswith("linux") or "backend: OpenMP" not in torch.__config__.parallel_info():
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "GOMP_parallel") else None


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="lam-delta-rule")


def over_heads(kernel: Callable[..., None], batch: int, length: int, heads: int, *args) -> None:
    """Run the kernel over all (batch, head) pairs, on as many threads as torch has, each the next that is left."""
    tasks = batch * heads
    threads = min(torch.get_num_threads(), tasks)
    args = (*args, np.zeros(1, np.int64))  # pairs taken
    if threads <= 1 or length * tasks < _THREAD_MIN:
        kernel(*args)
    elif openmp := _openmp():
        _on_torchs_threads(openmp, threads, lambda: kernel(*args))
    else:
        futures = [_pool(threads).submit(kernel, *args) for _ in range(threads - 1)]
        kernel(*args)
        for future in futures:
            future.result()


def _on_torchs_threads(openmp: ctypes.CDLL, threads: int, run: Callable[[], None]) -> None:
    """Call `run` on each of at most so many threads.

    They are the threads that torch computes on. Between its operations these do not sleep but spin for a while, on the
    very cores that threads of our own would need: with two cores, these came to half the speed.
    """
    errors: list[BaseException] = []

    @_shares
    def share(_: None) -> None:
        try:
            run()
        except BaseException as error:  # cannot pass through C
            errors.append(error)

    openmp.GOMP_parallel(share, None, ctypes.c_uint(threads), ctypes.c_uint(0))
    if errors:
        raise errors[0]


if hasattr(os, "register_at_fork"):  # a forked child has none of its parent's threads
    os.register_at_fork(after_in_child=_pool.cache_clear)
