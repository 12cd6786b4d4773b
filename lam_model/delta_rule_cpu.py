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
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

try:  # optional where transformers reads this file: `delta_rule` comes here only if numba is installed
    import numba
except ImportError as error:
    raise ImportError("the compiled CPU kernel needs numba: pip install numba") from error

# Reordered sums and fused multiply-adds, but NaN and infinity still count.
_FASTMATH = {"contract", "reassoc", "nsz", "arcp"}
_ROWS = 8  # rows of the state worked on together: their reads add up in registers
_THREAD_MIN = 1024  # tokens x heads under which a second thread costs more than it saves


@cache
def _forward_kernel(K: int, V: int) -> Callable[..., None]:
    """For key width K and value width V, known to the compiler: that halves the time."""
    ROWS = math.gcd(K, _ROWS)

    @numba.njit(nogil=True, cache=True, fastmath=_FASTMATH)
    def forward(query, key, value, strides, beta, log_decay, state, reverse, output, last_state, first, last):
        length, heads = beta.shape[1:3]
        dtype = last_state.dtype
        S = np.empty((K, V), dtype)
        q, k, k_next = np.empty(K, dtype), np.empty(K, dtype), np.empty(K, dtype)
        p, o, u = np.empty(V, dtype), np.empty(V, dtype), np.empty(V, dtype)
        start = length - 1 if reverse else 0
        step = -1 if reverse else 1
        for task in range(first, last):
            n, h = task // heads, task % heads
            query_at, key_at, value_at = n * strides[:, 0] + start * strides[:, 1] + h * strides[:, 2]
            # A slice is known not to have gaps: it is read by vector instructions.
            k_of_next = key[key_at : key_at + K]
            for i in range(K):
                k_next[i] = k_of_next[i]
            S[:] = 0
            p[:] = 0
            if state.size:
                S[:] = state[n, h]
                for i in range(K):
                    for j in range(V):
                        p[j] += S[i, j] * k_next[i]
            for s in range(length):
                t = start + step * s
                if s + 1 < length:
                    key_at += step * strides[1, 1]
                q_of_t, k_of_next = query[query_at : query_at + K], key[key_at : key_at + K]
                v, out = value[value_at : value_at + V], output[n, t, h]
                for i in range(K):
                    q[i], k[i], k_next[i] = q_of_t[i], k_next[i], k_of_next[i]
                query_at += step * strides[0, 1]
                value_at += step * strides[2, 1]
                alpha = np.exp(log_decay[n, t, h])
                b = beta[n, t, h]
                for j in range(V):
                    u[j] = b * (v[j] - alpha * p[j])
                    p[j] = 0
                    o[j] = 0
                for i0 in range(0, K, ROWS):
                    if reverse:
                        for j in range(V):
                            o_j, p_j, u_j = o[j], p[j], u[j]
                            for r in range(ROWS):
                                old = S[i0 + r, j]
                                new = alpha * old + k[i0 + r] * u_j
                                o_j += q[i0 + r] * old
                                p_j += k_next[i0 + r] * new
                                S[i0 + r, j] = new
                            o[j], p[j] = o_j, p_j
                    else:
                        for j in range(V):
                            o_j, p_j, u_j = o[j], p[j], u[j]
                            for r in range(ROWS):
                                new = alpha * S[i0 + r, j] + k[i0 + r] * u_j
                                o_j += q[i0 + r] * new
                                p_j += k_next[i0 + r] * new
                                S[i0 + r, j] = new
                            o[j], p[j] = o_j, p_j
                for j in range(V):
                    out[j] = o[j]
            last_state[n, h] = S

    return forward


@cache
def _backward_kernel(K: int, V: int) -> Callable[..., None]:
    ROWS = math.gcd(K, _ROWS)

    @numba.njit(nogil=True, cache=True, fastmath=_FASTMATH)
    def backward(
        query, key, value, beta, log_decay, state, reverse, d_output, d_state,
        d_query, d_key, d_value, d_beta, d_log_decay, first, last,
    ):  # fmt: skip
        length, heads = query.shape[1:3]
        dtype = d_state.dtype
        states = np.empty((length + 1, K, V), dtype)  # before each token, recomputed: cheaper than kept
        predicted, written = np.empty((length, V), dtype), np.empty((length, V), dtype)
        dS = np.empty((K, V), dtype)
        q, k, dq, dk = np.empty(K, dtype), np.empty(K, dtype), np.empty(K, dtype), np.empty(K, dtype)
        do, du, dp = np.empty(V, dtype), np.empty(V, dtype), np.empty(V, dtype)
        zero, one = np.zeros(1, dtype)[0], np.ones(1, dtype)[0]
        start = length - 1 if reverse else 0
        step = -1 if reverse else 1
        for task in range(first, last):
            n, h = task // heads, task % heads
            states[0] = 0
            if state.size:
                states[0] = state[n, h]
            for s in range(length):
                t = start + step * s
                S, S_next, p, u = states[s], states[s + 1], predicted[s], written[s]
                alpha = np.exp(log_decay[n, t, h])
                p[:] = 0
                for i in range(K):
                    k[i] = key[n, t, h, i]
                for i0 in range(0, K, ROWS):
                    for j in range(V):
                        p_j = p[j]
                        for r in range(ROWS):
                            p_j += S[i0 + r, j] * k[i0 + r]
                        p[j] = p_j
                for j in range(V):
                    u[j] = beta[n, t, h] * (value[n, t, h, j] - alpha * p[j])
                for i0 in range(0, K, ROWS):
                    for j in range(V):
                        u_j = u[j]
                        for r in range(ROWS):
                            S_next[i0 + r, j] = alpha * S[i0 + r, j] + k[i0 + r] * u_j
            dS[:] = d_state[n, h]
            for s in range(length - 1, -1, -1):
                t = start + step * s
                S, p, u = states[s], predicted[s], written[s]
                read = S if reverse else states[s + 1]
                alpha = np.exp(log_decay[n, t, h])
                b = beta[n, t, h]
                # The read's gradient joins the state's after the write (left to right) or before (right to left).
                after, before = (zero, one) if reverse else (one, zero)
                for i in range(K):
                    q[i], k[i] = query[n, t, h, i], key[n, t, h, i]
                for j in range(V):
                    do[j] = d_output[n, t, h, j]
                    du[j] = 0
                for i in range(K):
                    k_i, q_i, dq_i, dk_i = k[i], after * q[i], zero, zero
                    for j in range(V):
                        d = dS[i, j] + q_i * do[j]
                        dS[i, j] = d
                        dq_i += read[i, j] * do[j]
                        dk_i += d * u[j]
                        du[j] += d * k_i
                    dq[i], dk[i] = dq_i, dk_i
                d_b, d_alpha = zero, zero
                for j in range(V):
                    d_b += du[j] * (value[n, t, h, j] - alpha * p[j])
                    d_value[n, t, h, j] = b * du[j]
                    dp[j] = -b * du[j]
                    d_alpha += p[j] * dp[j]
                for i in range(K):
                    k_i, q_i, dk_i = k[i], before * q[i], zero
                    for j in range(V):
                        dk_i += S[i, j] * dp[j]
                        d_alpha += S[i, j] * dS[i, j]
                        dS[i, j] = alpha * (dS[i, j] + k_i * dp[j]) + q_i * do[j]
                    dk[i] += alpha * dk_i
                for i in range(K):
                    d_query[n, t, h, i], d_key[n, t, h, i] = dq[i], dk[i]
                d_beta[n, t, h] = d_b
                d_log_decay[n, t, h] = alpha * d_alpha
            d_state[n, h] = dS

    return backward


class _DeltaRule(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, value, beta, log_decay, state, reverse):
        batch, _, heads, width = value.shape
        ctx.has_state, ctx.reverse = state is not None, reverse
        state = query.new_empty(0, 0, 0, 0) if state is None else state  # to the kernels, empty stands for zeros
        ctx.save_for_backward(query, key, value, beta, log_decay, state)
        output = torch.empty_like(value, memory_format=torch.contiguous_format)
        last_state = query.new_empty(batch, heads, query.shape[-1], width)
        tokens = [x if x.stride(-1) == 1 else x.contiguous() for x in (query, key, value)]
        strides = np.array([x.stride()[:3] for x in tokens])
        arrays = [x.detach().numpy() for x in (*map(_flat, tokens), beta, log_decay, state)]
        arrays.insert(len(tokens), strides)
        kernel = _forward_kernel(*last_state.shape[2:])
        _over_heads(kernel, query, *arrays, reverse, output.numpy(), last_state.numpy())
        return output, last_state

    @staticmethod
    def backward(ctx, d_output, d_state):
        tokens = ctx.saved_tensors
        d_state = d_state.clone()
        grads = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in tokens[:5]]
        arrays = [x.detach().numpy() for x in tokens]
        results = [x.numpy() for x in (d_output, d_state, *grads)]
        _over_heads(_backward_kernel(*d_state.shape[2:]), tokens[0], *arrays, ctx.reverse, *results)
        return *grads, d_state if ctx.has_state else None, None


def _flat(x: Tensor) -> Tensor:
    """The memory from a tensor's first number to its last."""
    span = 1 + sum((count - 1) * stride for count, stride in zip(x.shape, x.stride(), strict=True))
    return x.as_strided((span,), (1,))


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


def _over_heads(kernel: Callable[..., None], query: Tensor, *args) -> None:
    """Run the kernel over all (batch, head) pairs, in as many shares as torch has threads."""
    batch, length, heads, _ = query.shape
    tasks = batch * heads
    threads = min(torch.get_num_threads(), tasks)
    if threads <= 1 or length * tasks < _THREAD_MIN:
        kernel(*args, 0, tasks)
    elif openmp := _openmp():
        _on_torchs_threads(openmp, threads, lambda i, n: kernel(*args, tasks * i // n, tasks * (i + 1) // n))
    else:
        bounds = [tasks * i // threads for i in range(threads + 1)]
        futures = [_pool(threads).submit(kernel, *args, a, b) for a, b in pairwise(bounds[1:])]
        kernel(*args, 0, bounds[1])
        for future in futures:
            future.result()


def _on_torchs_threads(openmp: ctypes.CDLL, threads: int, run: Callable[[int, int], None]) -> None:
    """Call `run(i, n)` on each of n threads, at most `threads` of them.

    They are the threads that torch computes on. Between its operations these do not sleep but spin for a while, on the
    very cores that threads of our own would need: with two cores, these came to half the speed.
    """
    errors: list[BaseException] = []

    @_shares
    def share(_: None) -> None:
        try:
            run(openmp.omp_get_thread_num(), openmp.omp_get_num_threads())
        except BaseException as error:  # cannot pass through C
            errors.append(error)

    openmp.GOMP_parallel(share, None, ctypes.c_uint(threads), ctypes.c_uint(0))
    if errors:
        raise errors[0]


if hasattr(os, "register_at_fork"):  # a forked child has none of its parent's threads
    os.register_at_fork(after_in_child=_pool.cache_clear)
