"""The layer in one pass against the layer's own code in float64, on the naive recurrence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_map_only

from lam_model.model import delta_rule
from lam_model.model.configuration_lam import LamConfig
from lam_model.model.directions import State
from lam_model.model.modeling_lam import GatedDeltaNet

fused_delta_net = pytest.importorskip("lam_model.model.delta_net_cpu", exc_type=ImportError).fused_delta_net
pytestmark = pytest.mark.usefixtures("empty_memory_is_nan")
HEADS = 3


def inputs(length: int, width: int = 8, carried: bool = True, batch: int = 2) -> list[Any]:
    """What `fused_delta_net` takes: texts of several lengths, the first with parts, in float64."""
    draw = torch.Generator().manual_seed(length)
    size = HEADS * width
    projected = 2 * torch.randn(batch, length, 3 * size + 4 * HEADS, generator=draw, dtype=torch.float64)
    mask = torch.arange(length) < length - 3 * torch.arange(batch)[:, None]
    scale = torch.rand(HEADS, generator=draw, dtype=torch.float64)
    carry = torch.rand(2, HEADS, generator=draw, dtype=torch.float64)
    breaks = torch.arange(length).expand(batch, -1) % 7 == 5
    breaks[1:] = False
    state = torch.randn(2, batch, HEADS, width, width, generator=draw, dtype=torch.float64)
    return [projected, mask.long(), scale, State(*state) if carried else None, carry, breaks & mask]


def floats_to(dtype: torch.dtype, arguments: list[Any]) -> list[Any]:
    return tree_map_only(torch.Tensor, lambda x: x.to(dtype) if x.is_floating_point() else x, arguments)


def in_one_pass(arguments: list[Any]) -> tuple[torch.Tensor, ...]:
    mixed, state = fused_delta_net(*arguments)
    return mixed, *state


def wanted(monkeypatch, arguments: list[Any]) -> tuple[torch.Tensor, ...]:
    monkeypatch.setattr(delta_rule, "_fastest", lambda _: "naive")
    projected, mask, scale, state, carry, breaks = floats_to(torch.float64, arguments)
    size = (projected.shape[-1] - 4 * HEADS) // 3
    net = GatedDeltaNet(LamConfig(hidden_size=size, num_attention_heads=HEADS)).double()
    with torch.no_grad():
        net.scale.copy_(scale)
        net.carry.copy_(carry)
        mixed, state = net._mix(projected, mask, state, breaks)
        return mixed, *state


def single(arguments: list[Any], dtype: torch.dtype = torch.float32) -> list[Any]:
    """In float32, the projection in `dtype`."""
    projected, *others = floats_to(torch.float32, arguments)
    return [projected.to(dtype), *others]


@pytest.mark.parametrize("carried", [False, True], ids=["fresh", "carried"])
@pytest.mark.parametrize("length", [1, 2, 31, 32, 33, 65, 511, 513])
def test_one_pass_equals_the_layer_at_any_length(monkeypatch, length, carried):
    arguments = inputs(length, carried=carried)
    for found, exact in zip(in_one_pass(single(arguments)), wanted(monkeypatch, arguments), strict=True):
        torch.testing.assert_close(found.double(), exact, rtol=3e-6, atol=3e-6)


@pytest.mark.parametrize("width", [32, 20, 5, 1])
def test_one_pass_equals_the_layer_at_other_head_sizes(monkeypatch, width):
    arguments = inputs(40, width)
    for found, exact in zip(in_one_pass(single(arguments)), wanted(monkeypatch, arguments), strict=True):
        torch.testing.assert_close(found.double(), exact, rtol=3e-6, atol=3e-6)


def test_one_pass_in_bfloat16_rounds_its_output_alone(monkeypatch):
    arguments = single(inputs(70, 32), torch.bfloat16)
    mixed, *states = in_one_pass(arguments)
    exact, *exact_states = wanted(monkeypatch, arguments)
    assert mixed.dtype == torch.bfloat16
    in_single, _ = fused_delta_net(*single(arguments))
    assert torch.equal(mixed, in_single.bfloat16())
    torch.testing.assert_close(mixed.double(), exact, rtol=2**-8, atol=3e-6)
    for state, exact_state in zip(states, exact_states, strict=True):
        assert state.dtype == torch.float32
        torch.testing.assert_close(state.double(), exact_state, rtol=3e-6, atol=3e-6)


@pytest.mark.parametrize("logit", [-1e4, -100.0, -88.0, -1e-30, 0.0, 88.0, 100.0, 1e4])
def test_one_pass_equals_the_layer_on_extreme_numbers(monkeypatch, logit):
    arguments = inputs(33)
    arguments[0][:, ::2] = logit
    for found, exact in zip(in_one_pass(single(arguments)), wanted(monkeypatch, arguments), strict=True):
        assert found.isfinite().all()
        torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5 * exact.abs().max().item())


def test_a_number_that_is_none_stays_none():
    arguments = single(inputs(9))
    arguments[0][0, 4, :8] = torch.nan
    mixed, _ = fused_delta_net(*arguments)
    assert mixed[0, 4, :8].isnan().all()
    assert mixed[1].isfinite().all()


def test_layout_in_memory_does_not_matter():
    arguments = single(inputs(20))
    projected, mask, scale, state, carry, breaks = arguments
    relaid = [*map(transposed, (projected, mask)), scale, State(*map(transposed, state)), transposed(carry), breaks]
    assert not relaid[0].is_contiguous()
    for found, before in zip(in_one_pass(relaid), in_one_pass(arguments), strict=True):
        assert torch.equal(found, before)


def transposed(x: torch.Tensor) -> torch.Tensor:
    return x.mT.contiguous().mT if x.ndim > 1 else x


@pytest.mark.parametrize("openmp", [True, False])
def test_threads_share_the_heads_out(openmp, monkeypatch):
    if not openmp:
        monkeypatch.setattr("lam_model.model.delta_rule_cpu._openmp", lambda: None)
    arguments = single(inputs(300, batch=5))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = in_one_pass(arguments)
        torch.set_num_threads(3)
        for _ in range(5):
            for found, one in zip(in_one_pass(arguments), alone, strict=True):
                assert torch.equal(found, one)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layer_takes_it_in_inference_alone(monkeypatch, dtype):
    taken = []
    monkeypatch.setattr(
        "lam_model.model.delta_net_cpu.fused_delta_net", lambda *args: taken.append(1) or fused_delta_net(*args)
    )
    net = GatedDeltaNet(LamConfig(hidden_size=24, num_attention_heads=HEADS)).to(dtype)
    x, mask = torch.randn(2, 9, 24, dtype=dtype), torch.ones(2, 9, dtype=torch.long)
    trained, _ = net(x, mask, None)
    assert not taken
    with torch.no_grad():
        inferred, _ = net(x, mask, None)
    assert taken
    assert trained.requires_grad
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(inferred, trained.detach(), rtol=tolerance, atol=tolerance)
