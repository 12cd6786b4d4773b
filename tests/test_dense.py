"""Dense layers: the same function whether the weight has been laid out or not, and never an old weight."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch.nn import functional as F

from lam_model.dense import Dense

needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")


@pytest.fixture
def layer() -> Dense:
    torch.manual_seed(0)
    return Dense(24, 40)


def tokens(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, 24, generator=torch.Generator().manual_seed(len(shape))).to(dtype)


@pytest.mark.parametrize("shape", [(1,), (7,), (1, 1), (2, 5), (3, 0), (2, 3, 4)])
@pytest.mark.parametrize("no_gradients", [torch.no_grad, torch.inference_mode])
def test_it_is_a_linear_layer(layer, shape, no_gradients):
    x = tokens(*shape)
    with no_gradients():
        torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))


@needs_onednn
def test_the_weight_is_laid_out_once_and_again_when_it_has_changed(layer):
    x = tokens(3)
    with torch.no_grad():
        layer(x)
        packed = layer._packed
        layer(x)
        assert packed is not None
        assert layer._packed is packed
        layer.weight.mul_(2)
        torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))
        layer.load_state_dict(Dense(24, 40).state_dict())
        torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))
        layer.weight.data = torch.randn(40, 24)
        torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))


def test_in_training_it_has_gradients_and_lays_nothing_out(layer):
    x = tokens(3).requires_grad_()
    layer(x).sum().backward()
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand(3, -1))
    assert layer._packed is None


def test_under_autocast_and_of_another_type_it_does_what_linear_layers_do(layer):
    x = tokens(4)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    assert layer._packed is None
    with torch.no_grad(), pytest.raises(RuntimeError, match="dtype"):
        layer(x.double())
    half = copy.deepcopy(layer).bfloat16()
    with torch.no_grad():
        found = half(x.bfloat16())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), layer(x), atol=0.03, rtol=0.02)


def test_a_model_made_in_inference_mode_works():
    with torch.inference_mode():
        layer, x = Dense(24, 40), tokens(3)
        torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))


def test_copies_and_pickles_hold_no_layout(layer):
    x = tokens(3)
    with torch.no_grad():
        expected = layer(x)
        for same in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert same._packed is None
            torch.testing.assert_close(same(x), expected)
    assert set(layer.state_dict()) == {"weight", "bias"}
