"""The gated delta rule in one direction: a readable recurrence, its chunked matrix form, one dispatch.

Yang, Kautz, Hatamizadeh, "Gated Delta Networks" (2024), section 3. For each head, with a state S of
(key width, value width), a write strength beta and a decay alpha in (0, 1]:

    S_t = alpha_t S_{t-1} + k_t (beta_t (v_t - alpha_t S_{t-1}' k_t))'

Left to right, a token reads after its own write: o_t = S_t' q_t. Right to left (``reverse=True``) it reads
the state that the tokens to its right left behind, before its own decay and write: o_t = S_{t+1}' q_t. So
the sum of both directions meets every token once. beta = 0 and log_decay = 0 leave the state as it is:
padding is an exact no-op.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

try:  # optional: transformers reads this file where only it and torch may be installed
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule
except ImportError:
    chunk_gated_delta_rule = None

CHUNK = 32  # tokens a step of the chunked form, a power of two; on a CPU twice as fast as 64


def naive_delta_rule(
    query: Tensor, key: Tensor, value: Tensor, beta: Tensor, log_decay: Tensor, state: Tensor, reverse: bool = False
) -> tuple[Tensor, Tensor]:
    """The recurrence, token by token: the reference that every other form is tested against."""
    length = query.shape[1]
    outputs: list[Tensor] = [query[:, :0]] * length
    for t in reversed(range(length)) if reverse else range(length):
        q, k, v = query[:, t, :, :, None], key[:, t, :, :, None], value[:, t, :, None, :]
        before = state
        state = state * log_decay[:, t, :, None, None].exp()
        error = v - (k * state).sum(-2, keepdim=True)  # (batch, heads, 1, value width)
        state = state + k * (beta[:, t, :, None, None] * error)
        outputs[t] = (q * (before if reverse else state)).sum(-2)
    return torch.stack(outputs, dim=1), state


def chunked_delta_rule(
    query: Tensor, key: Tensor, value: Tensor, beta: Tensor, log_decay: Tensor, state: Tensor, reverse: bool = False
) -> tuple[Tensor, Tensor]:
    """Matrix form over chunks of tokens (the WY form of section 3.3): any device, autograd, torch.compile."""
    if reverse:
        return _flipped(chunked_delta_rule, query, key, value, beta, log_decay, state)
    batch, length = query.shape[:2]
    pad = -length % CHUNK

    def chunks(x: Tensor) -> Tensor:  # (batch, length, heads, ...) -> (batch, heads, chunks, CHUNK, ...)
        x = torch.cat([x, x.new_zeros(batch, pad, *x.shape[2:])], dim=1).transpose(1, 2)
        return x.unflatten(2, (-1, CHUNK))

    q, k, v, b = chunks(query), chunks(key), chunks(value), chunks(beta)[..., None]
    g = chunks(log_decay).cumsum(-1)  # log of the decay from the chunk's start to after each token
    ratio = g[..., :, None] - g[..., None, :]
    causal = torch.ones(CHUNK, CHUNK, dtype=torch.bool, device=q.device).tril()
    ratio = ratio.masked_fill(~causal, -torch.inf).exp()  # decay from token j to token i, 0 where j > i
    from_start, to_end = g[..., None].exp(), (g[..., -1:] - g)[..., None].exp()

    # u = what each token writes: (1 + A) u = beta (v - decayed S' k), A strictly lower triangular
    inverse = _unit_lower_inverse((b * ratio * (k @ k.transpose(-1, -2))).tril(-1))
    u_fixed, u_state = inverse @ (b * v), inverse @ (b * from_start * k)
    scores = ratio * (q @ k.transpose(-1, -2))

    def read(state: Tensor, chunk: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        u_fixed, u_state, q, k, scores, whole = chunk
        u = u_fixed - u_state @ state
        return whole * state + k.transpose(-1, -2) @ u, q @ state + scores @ u

    xs = (u_fixed, u_state, q * from_start, k * to_end, scores, from_start[..., -1:, :])
    state, output = _scan(read, state, tuple(x.movedim(2, 0) for x in xs))
    output = output.movedim(0, 2).flatten(2, 3)  # (batch, heads, tokens, value width)
    return output[:, :, :length].transpose(1, 2), state


def _unit_lower_inverse(a: Tensor) -> Tensor:
    """The inverse of 1 + a, a strictly lower triangular of (..., CHUNK, CHUNK): its blocks of 1, 2, 4, ... in turn.

    [[P, 0], [B, Q]] has the inverse [[P', 0], [-Q' B P', Q']]: all blocks of one size at once, by matrix products
    alone, and no less stable than substitution.
    """
    i = torch.arange(CHUNK, device=a.device)
    inverse = torch.eye(CHUNK, dtype=a.dtype, device=a.device).expand_as(a)
    size = 1
    while size < CHUNK:
        block = i // size
        below = (block[:, None] % 2 == 1) & (block[:, None] == block + 1)
        inverse = inverse - inverse @ (a * below) @ inverse
        size *= 2
    return inverse


def _scan(
    step: Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor, Tensor]], state: Tensor, xs: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    """Fold `step` over the first dimension of `xs`: the last state, and the outputs stacked."""
    if torch.onnx.is_in_onnx_export():  # a loop in the graph, not as many copies of it as the example has chunks
        from torch._higher_order_ops import scan

        return scan(step, state, xs)
    outputs = []
    for chunk in zip(*xs, strict=True):
        state, output = step(state, chunk)
        outputs.append(output)
    return state, torch.stack(outputs)


def fla_delta_rule(
    query: Tensor, key: Tensor, value: Tensor, beta: Tensor, log_decay: Tensor, state: Tensor, reverse: bool = False
) -> tuple[Tensor, Tensor]:
    """flash-linear-attention's Triton kernel (CUDA only; ``pip install flash-linear-attention``).

    It takes no float32 tokens: they are rounded to bfloat16, while the decay and the state stay in float32.
    """
    if reverse:
        return _flipped(fla_delta_rule, query, key, value, beta, log_decay, state)
    q, k, v, b = (x.bfloat16() for x in (query, key, value, beta))
    output, state = chunk_gated_delta_rule(
        q, k, v, g=log_decay, beta=b, scale=1.0, initial_state=state, output_final_state=True
    )
    return output.to(query.dtype), state


def cpu_delta_rule(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    beta: Tensor,
    log_decay: Tensor,
    state: Tensor | None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Compiled loops on the CPU, forward and backward (needs numba)."""
    from .delta_rule_cpu import delta_rule

    return delta_rule(query, key, value, beta, log_decay, state, reverse)


def onnx_delta_rule(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    beta: Tensor,
    log_decay: Tensor,
    state: Tensor | None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """ONNX Runtime's operator, in a graph that is being exported; it computes nothing here."""
    batch, _, heads, width = value.shape

    def rule(query: Tensor, key: Tensor, value: Tensor, beta: Tensor, log_decay: Tensor, state: Tensor | None) -> Any:
        return torch.onnx.ops.symbolic_multi_out(
            "com.microsoft::LinearAttention",
            (query, key, value, state, log_decay, beta),
            {"q_num_heads": heads, "kv_num_heads": heads, "update_rule": "gated_delta", "scale": 1.0},
            dtypes=(value.dtype, value.dtype),
            shapes=(tuple(value.shape), (batch, heads, query.shape[-1] // heads, width)),
            version=1,
        )

    # Heads side by side, as the operator takes them: both directions share what that costs.
    query, key, value = (x.flatten(2) for x in (query, key, value))
    if reverse:
        output, after = _flipped(rule, query, key, value, beta, log_decay, state)
    else:
        output, after = rule(query, key, value, beta, log_decay, state)
    return output.unflatten(-1, (heads, width)), after


BACKENDS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "naive": naive_delta_rule,
    "chunked": chunked_delta_rule,
    "cpu": cpu_delta_rule,
    "fla": fla_delta_rule,
    "onnx": onnx_delta_rule,
}


def delta_rule(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    beta: Tensor,
    log_decay: Tensor,
    state: Tensor | None = None,
    reverse: bool = False,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """The gated delta rule over one stretch of tokens, state in and state out.

    Args:
        query, key: (batch, length, heads, key width), normalised by the caller.
        value: (batch, length, heads, value width).
        beta: write strength in [0, 1], (batch, length, heads).
        log_decay: natural logarithm of the decay, at most 0, (batch, length, heads).
        state: (batch, heads, key width, value width) to go on from; zeros if None.
        reverse: right to left, reading before the write (see the module's text).
        backend: a name in `BACKENDS`; by default the fastest that is at hand for the tensors' device.

    Returns:
        The outputs (batch, length, heads, value width) and the state after the last token read.
    """
    rule = BACKENDS[backend or _fastest(query)]
    if state is None and rule not in (cpu_delta_rule, onnx_delta_rule):  # which fill and copy none for nothing
        state = query.new_zeros(query.shape[0], query.shape[2], query.shape[3], value.shape[3])
    with torch.autocast(query.device.type, enabled=False):  # its products keep the precision that they are given in
        return rule(query, key, value, beta, log_decay, state, reverse)


def fuses(projected: Tensor) -> bool:
    """Whether all that a layer does with a projection is best done in one pass (`delta_net_cpu.py`)."""
    kinds = (torch.float32, torch.bfloat16)
    return not (torch.is_grad_enabled() or is_traced()) and projected.dtype in kinds and _fastest(projected) == "cpu"


def _flipped(
    rule: Callable[..., tuple[Tensor, Tensor]],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    beta: Tensor,
    log_decay: Tensor,
    state: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Right to left by an operator that only reads after the write: each query is asked one token earlier.

    The rightmost token reads the incoming state itself.
    """
    leftwards = torch.arange(query.shape[1] - 1, -1, -1, device=query.device)
    earlier = query.index_select(1, (leftwards - 1).clamp(min=0))  # what the last one of them reads is left out
    output, after = rule(earlier, *(x.flip(1) for x in (key, value, beta, log_decay)), state)
    output = F.pad(output.index_select(1, leftwards[1:]), (0, 0) * (output.ndim - 2) + (0, 1))
    if state is not None:
        output[:, -1] = (query[:, -1, :, :, None] * state).sum(-2)
    return output, after


def is_traced() -> bool:
    """Whether a compiler looks on: `torch.compile`, `torch.export` or `torch.jit.trace`, but not the ONNX export."""
    return not torch.onnx.is_in_onnx_export() and (torch.compiler.is_compiling() or torch.jit.is_tracing())


def _fastest(tensor: Tensor) -> str:
    if torch.onnx.is_in_onnx_export():
        return "onnx"
    if tensor.is_cuda and chunk_gated_delta_rule is not None:
        return "fla"
    if tensor.device.type == "cpu" and find_spec("numba"):
        return "cpu"
    return "chunked"
