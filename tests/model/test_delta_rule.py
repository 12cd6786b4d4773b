"""Every form of the delta rule against the naive recurrence in float64, forward and backward."""

from __future__ import annotations

import importlib.util
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import NamedTuple

import pytest
import torch
from torch.nn import functional as F

from lam_model.model.delta_rule import BACKENDS, delta_rule

pytestmark = pytest.mark.usefixtures("empty_memory_is_nan")
NAMES = ("query", "key", "value", "beta", "log_decay", "state")
LENGTHS = (1, 2, 63, 64, 65, 511, 513, 1000)
FAST = [
    "chunked",
    pytest.param("cpu", marks=pytest.mark.skipif(not importlib.util.find_spec("numba"), reason="needs numba")),
]
FLA = pytest.param(
    "fla",
    marks=pytest.mark.skipif(
        not (torch.cuda.is_available() and importlib.util.find_spec("fla")), reason="needs CUDA and fla"
    ),
)


class Case(NamedTuple):
    """One input of the delta rule, a function of these fields alone."""

    length: int
    kind: str = "usual"
    carried: bool = True
    reverse: bool = False
    batch: int = 1
    heads: int = 2
    key_width: int = 8
    value_width: int = 8

    def inputs(self) -> list[torch.Tensor]:
        draw = torch.Generator().manual_seed(self.length)

        def normal(*shape):
            return torch.randn(*shape, dtype=torch.float64, generator=draw)

        tokens = (self.batch, self.length, self.heads)
        query, key = (F.normalize(F.silu(normal(*tokens, self.key_width)), dim=-1) for _ in range(2))
        value = normal(*tokens, self.value_width)
        beta, log_decay = normal(*tokens).sigmoid(), F.logsigmoid(normal(*tokens) + 3)
        state = normal(self.batch, self.heads, self.key_width, self.value_width) * float(self.carried)
        odd = torch.arange(self.length) % 5 == 2
        if self.kind == "masked":
            masked = odd | (torch.arange(self.length) >= 0.8 * self.length)
            beta[:, masked], log_decay[:, masked] = 0.0, 0.0
        elif self.kind == "strong decay":
            log_decay[:] = -20.0 + normal(*tokens)
        elif self.kind == "sudden decay":
            log_decay[:, odd] = -20.0
        elif self.kind == "extreme beta":
            beta[:] = 1e-6
            beta[:, odd] = 1 - 1e-6
        elif self.kind == "repeated keys":
            key[:] = key[:, :1]
            beta[:], log_decay[:] = 0.999, -1e-3
        return [query, key, value, beta, log_decay, state]


def run(backend: str, case: Case, inputs: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Output, final state and all six gradients, in float64."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    output, state = BACKENDS[backend](*inputs, case.reverse)
    weigh = torch.Generator().manual_seed(7)
    loss = sum((x * torch.randn(x.shape, generator=weigh, dtype=torch.float64).to(x)).sum() for x in (output, state))
    gradients = torch.autograd.grad(loss, inputs)
    results = {"output": output, "final state": state}
    results |= {f"gradient of {name}": x for name, x in zip(NAMES, gradients, strict=True)}
    return {name: x.detach().double().cpu() for name, x in results.items()}


@cache
def expected(case: Case) -> dict[str, torch.Tensor]:
    return run("naive", case, case.inputs())


def check(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], tolerance: float) -> None:
    """Differences are measured against the largest value, or against 1 where all are smaller."""
    for name, reference in wanted.items():
        assert found[name].shape == reference.shape, name
        assert found[name].isfinite().all(), name
        error = (found[name] - reference).abs().max() / reference.abs().max().clamp(min=1)
        assert error <= tolerance, f"{name} is off by {error:.1e} of its size"


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 3e-6), (torch.float64, 1e-13)], ids=["f32", "f64"])
@pytest.mark.parametrize("carried", [False, True], ids=["fresh", "carried"])
@pytest.mark.parametrize("reverse", [False, True], ids=["ltr", "rtl"])
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("backend", FAST)
def test_fast_forms_equal_the_recurrence_at_any_length(backend, length, reverse, carried, dtype, tolerance):
    case = Case(length, carried=carried, reverse=reverse)
    check(run(backend, case, [x.to(dtype) for x in case.inputs()]), expected(case), tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("reverse", [False, True], ids=["ltr", "rtl"])
@pytest.mark.parametrize(
    ("kind", "tolerance"),
    [
        ("masked", 3e-6),
        ("strong decay", 3e-6),
        ("sudden decay", 3e-5),  # the chunked form takes differences of the summed log decays
        ("extreme beta", 3e-6),
        ("repeated keys", 1e-5),  # the recurrence itself in float32 is off by 4e-6
    ],
)
@pytest.mark.parametrize("backend", FAST)
def test_fast_forms_equal_the_recurrence_on_hard_inputs(backend, kind, tolerance, reverse, dtype):
    case = Case(200, kind, reverse=reverse)
    tolerance = tolerance if dtype == torch.float32 else 1e-13
    check(run(backend, case, [x.to(dtype) for x in case.inputs()]), expected(case), tolerance)


@pytest.mark.parametrize("reverse", [False, True], ids=["ltr", "rtl"])
@pytest.mark.parametrize(("key_width", "value_width"), [(32, 32), (20, 20), (20, 12), (5, 7)])
@pytest.mark.parametrize("backend", FAST)
def test_fast_forms_equal_the_recurrence_at_other_head_sizes(backend, key_width, value_width, reverse):
    case = Case(70, reverse=reverse, batch=2, heads=3, key_width=key_width, value_width=value_width)
    check(run(backend, case, [x.float() for x in case.inputs()]), expected(case), 3e-6)


@pytest.mark.parametrize("reverse", [False, True], ids=["ltr", "rtl"])
@pytest.mark.parametrize("length", [1, 65, 513])
@pytest.mark.parametrize("backend", [FLA])
def test_fla_equals_the_recurrence(backend, length, reverse):
    case = Case(length, reverse=reverse, key_width=32, value_width=32)
    check(run(backend, case, [x.float().cuda() for x in case.inputs()]), expected(case), 5e-3)  # it multiplies in TF32


def test_recurrence_is_the_published_formula():
    """S_t = alpha_t (1 - beta_t k_t k_t') S_{t-1} + beta_t k_t v_t', written with matrices (equation 10)."""
    query, key, value, beta, log_decay, S = (x[0] for x in Case(30, heads=1).inputs())
    outputs, S = [], S[0]
    for q, k, v, b, g in zip(query[:, 0], key[:, 0], value[:, 0], beta[:, 0], log_decay[:, 0], strict=True):
        S = g.exp() * (torch.eye(8) - b * torch.outer(k, k)).double() @ S + b * torch.outer(k, v)
        outputs.append(S.T @ q)
    output, state = delta_rule(*Case(30, heads=1).inputs(), backend="naive")
    torch.testing.assert_close(output[0, :, 0], torch.stack(outputs))
    torch.testing.assert_close(state[0, 0], S)


@pytest.mark.parametrize("backend", ["naive", *FAST])
def test_right_to_left_is_left_to_right_of_queries_shifted_by_one(backend):
    """The flipped text with a neutral token before it; each query is asked one token earlier."""
    *tokens, state = Case(100).inputs()
    query, *others = (x.flip(1) for x in tokens)
    query = F.pad(query, (0, 0, 0, 0, 0, 1))
    others = [F.pad(x, (0, 0) * (x.ndim - 2) + (1, 0)) for x in others]
    shifted, shifted_state = delta_rule(query, *others, state, backend="naive")
    output, final = delta_rule(*tokens, state, reverse=True, backend=backend)
    torch.testing.assert_close(output, shifted[:, :-1].flip(1))
    torch.testing.assert_close(final, shifted_state)


@pytest.mark.parametrize("backend", ["naive", *FAST])
def test_both_directions_together_meet_every_token_once(backend):
    """With orthonormal keys, full writes and no decay, the two reads add up to plain linear attention."""
    query, key, value, *_ = Case(8).inputs()
    key[:] = torch.linalg.qr(key[0, :, 0]).Q[:, None]
    ones, zeros = torch.ones_like(query[..., 0]), torch.zeros_like(query[..., 0])
    both = sum(delta_rule(query, key, value, ones, zeros, reverse=r, backend=backend)[0] for r in (False, True))
    torch.testing.assert_close(both, torch.einsum("bthk,bshk,bshv->bthv", query, key, value))


@pytest.mark.parametrize("cut", [1, 37, 64, 99])
@pytest.mark.parametrize("reverse", [False, True], ids=["ltr", "rtl"])
@pytest.mark.parametrize("backend", ["naive", *FAST])
def test_two_parts_with_carried_state_equal_the_whole(backend, reverse, cut):
    *tokens, state = Case(100).inputs()
    whole, whole_state = delta_rule(*tokens, state, reverse, backend)
    parts = [[x[:, :cut] for x in tokens], [x[:, cut:] for x in tokens]]
    outputs = []
    for part in reversed(parts) if reverse else parts:
        output, state = delta_rule(*part, state, reverse, backend)
        outputs.append(output)
    torch.testing.assert_close(torch.cat(outputs[::-1] if reverse else outputs, dim=1), whole)
    torch.testing.assert_close(state, whole_state)


@pytest.mark.parametrize("reverse", [False, True], ids=["ltr", "rtl"])
@pytest.mark.parametrize("backend", ["naive", *FAST])
def test_masked_tokens_change_nothing(backend, reverse):
    """Pads on the right, whatever stands there, leave all other outputs and the state as they are."""
    *tokens, state = [x.float() for x in Case(90).inputs()]
    alone, alone_state = delta_rule(*[x[:, :70] for x in tokens], state, reverse, backend)
    tokens[3][:, 70:], tokens[4][:, 70:] = 0, 0
    padded, padded_state = delta_rule(*tokens, state, reverse, backend)
    torch.testing.assert_close(padded[:, :70], alone, rtol=0, atol=1e-6)
    torch.testing.assert_close(padded_state, alone_state, rtol=0, atol=1e-6)


@pytest.mark.parametrize("backend", ["naive", *FAST])
def test_no_state_is_a_state_of_zeros(backend):
    *tokens, state = Case(20, carried=False, value_width=12).inputs()
    for found, wanted in zip(delta_rule(*tokens, backend=backend), delta_rule(*tokens, state), strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("backend", FAST)
def test_given_state_is_left_alone(backend):
    inputs = Case(20).inputs()
    before = inputs[-1].clone()
    _, state = delta_rule(*inputs, backend=backend)
    assert torch.equal(inputs[-1], before)
    assert not torch.equal(state, before)


@pytest.mark.parametrize("reverse", [False, True], ids=["ltr", "rtl"])
@pytest.mark.parametrize("backend", FAST)
def test_layout_in_memory_does_not_matter(backend, reverse):
    """Slices of a wider projection, a state out of a stack of layers, and a gradient that is one repeated number."""
    case = Case(70, reverse=reverse)
    query, key, value, beta, log_decay, state = case.inputs()
    wide = torch.cat([x.flatten(2) for x in (query, key, value, beta, log_decay)], dim=-1)
    slices = wide.split([16, 16, 16, 2, 2], dim=-1)
    slices = [x.unflatten(-1, (2, 8)) for x in slices[:3]] + list(slices[3:])
    layer_state = torch.stack([state, state + 1], dim=1)[:, 0].transpose(-1, -2).contiguous().transpose(-1, -2)
    assert not any(x.is_contiguous() for x in (*slices, layer_state))
    results = []
    for inputs in ([query, key, value, beta, log_decay, state], [*slices, layer_state]):
        inputs = [x.detach().requires_grad_() for x in inputs]
        output, final = BACKENDS[backend](*inputs, reverse)
        results.append([output, final, *torch.autograd.grad(output.sum() + final.sum(), inputs)])
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("backend", FAST)
def test_gradients_of_the_output_alone_and_of_the_state_alone(backend):
    """Where one of the two results is not used, autograd hands over zeros or nothing."""
    for which in range(2):
        grads = []
        for name in ("naive", backend):
            inputs = [x.requires_grad_() for x in Case(70).inputs()]
            result = BACKENDS[name](*inputs)[which].square().sum()
            grads.append(torch.autograd.grad(result, inputs, materialize_grads=True))
        for found, wanted in zip(*grads, strict=True):
            torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("openmp", [True, False])
def test_threads_at_once_give_what_one_gives(backend, openmp, monkeypatch):
    if backend == "cpu" and not openmp:
        monkeypatch.setattr("lam_model.model.delta_rule_cpu._openmp", lambda: None)
    case = Case(300, batch=2)  # enough tokens for the heads to be shared out
    inputs = [x.float() for x in case.inputs()]
    before = torch.get_num_threads()
    alone = run(backend, case, inputs)
    try:
        torch.set_num_threads(3)
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda _: run(backend, case, inputs), range(8)))
    finally:
        torch.set_num_threads(before)
    for result in results:
        check(result, alone, 1e-6)


def test_error_on_one_of_torchs_threads_is_raised():
    delta_rule_cpu = pytest.importorskip("lam_model.model.delta_rule_cpu")
    if not (openmp := delta_rule_cpu._openmp()):
        pytest.skip("torch runs on other threads than GNU's OpenMP here")
    seen = []

    def run() -> None:
        thread = threading.get_ident()
        seen.append(thread)
        if thread != threading.main_thread().ident:
            raise KeyError("another")

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with pytest.raises(KeyError, match="another"):
            delta_rule_cpu._on_torchs_threads(openmp, 3, run)
    finally:
        torch.set_num_threads(before)
    assert len(set(seen)) == len(seen) == 3


@pytest.mark.parametrize(
    ("numba", "backend", "chosen"),
    [(True, None, "cpu"), (False, None, "chunked"), (True, "chunked", "chunked"), (False, "naive", "naive")],
)
def test_fastest_form_at_hand_is_chosen_unless_one_is_named(monkeypatch, numba, backend, chosen):
    if numba:
        pytest.importorskip("numba")
    else:
        monkeypatch.setitem(sys.modules, "numba", None)  # as if it were not installed
    calls = []
    for name in BACKENDS:
        monkeypatch.setitem(BACKENDS, name, lambda *_, name=name: calls.append(name))
    delta_rule(*Case(3).inputs(), backend=backend)
    assert calls == [chosen]
