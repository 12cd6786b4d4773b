"""Dense layers: always the function of the weight as it is now."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch.nn import functional as F

from lam_model.model.dense import Dense

ROWS = (1, 7, 300)


@pytest.fixture
def layer() -> Dense:
    torch.manual_seed(0)
    return Dense(24, 40)


def tokens(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, 24, generator=torch.Generator().manual_seed(len(shape))).to(dtype)


def check(layer: Dense) -> None:
    """It gives what a linear layer with this weight gives, in inference and in training."""
    for rows in ROWS:
        x = tokens(rows)
        expected = F.linear(x, layer.weight.detach().clone(), layer.bias.detach().clone())
        with torch.no_grad():
            torch.testing.assert_close(layer(x), expected)
        torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("shape", [(1,), (7,), (300,), (1, 1), (2, 5), (3, 0), (2, 3, 100)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("no_gradients", [torch.no_grad, torch.inference_mode])
def test_it_is_a_linear_layer(layer, shape, dtype, no_gradients):
    layer, x = layer.to(dtype), tokens(*shape, dtype=dtype)
    with no_gradients():
        found = layer(x)
    assert found.dtype == dtype
    wanted = F.linear(x.float(), layer.weight.float(), layer.bias.float())
    torch.testing.assert_close(found.float(), wanted, **{} if dtype == torch.float32 else {"atol": 0.02, "rtol": 0.02})


WRITES = {
    "in place": lambda layer: layer.weight.mul_(2),
    "data": lambda layer: layer.weight.data.mul_(2),
    "data of data": lambda layer: layer.weight.detach().data.add_(1),
    "numpy": lambda layer: layer.weight.detach().numpy().__setitem__(0, 3.0),
    "one number by numpy": lambda layer: layer.weight.detach().numpy().__setitem__((5, 3), 9.0),
    "another tensor": lambda layer: setattr(layer.weight, "data", torch.randn(40, 24)),
    "another parameter": lambda layer: setattr(layer, "weight", torch.nn.Parameter(torch.randn(40, 24))),
    "swapped rows": lambda layer: layer.weight.data.copy_(layer.weight.data.flip(0).clone()),
    "state dict": lambda layer: layer.load_state_dict(Dense(24, 40).state_dict()),
    "assigned state dict": lambda layer: layer.load_state_dict(Dense(24, 40).state_dict(), assign=True),
    "double and back": lambda layer: layer.double().float(),
    "moved storage": lambda layer: layer.weight.untyped_storage().copy_(torch.randn(40 * 24).untyped_storage()),
    "foreach": lambda layer: torch._foreach_add_([layer.weight.data], 1.0),
    "unsafe version": lambda layer: _write_keeping_the_version(layer.weight),
}


def _write_keeping_the_version(weight: torch.Tensor) -> None:
    with torch.autograd._unsafe_preserve_version_counter(weight):
        weight.mul_(2)


@pytest.mark.parametrize("name", WRITES)
def test_a_write_of_any_sort_is_seen(layer, name):
    check(layer)  # whatever might be kept is kept now
    before = layer.weight.detach().clone()
    with torch.no_grad():
        WRITES[name](layer)
    assert name == "double and back" or not torch.equal(before, layer.weight)
    check(layer)


OPTIMISERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1),
    **{
        f"fused {kind.__name__}": lambda p, kind=kind: kind(p, lr=0.1, fused=True)
        for kind in (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad)
    },
    "foreach AdamW": lambda p: torch.optim.AdamW(p, lr=0.1, foreach=True),
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_step_of_any_optimiser_is_seen(layer, name):
    check(layer)
    before = layer.weight.detach().clone()
    optimiser = OPTIMISERS[name](layer.parameters())
    layer(tokens(9)).square().sum().backward()
    optimiser.step()
    assert not torch.equal(before, layer.weight)
    check(layer)


def test_in_training_it_has_gradients(layer):
    x = tokens(300).requires_grad_()
    layer(x).sum().backward()
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand(300, -1))


def test_under_autocast_and_of_another_type_it_does_what_linear_layers_do(layer):
    x = tokens(300)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    with torch.no_grad(), pytest.raises(RuntimeError, match="dtype"):
        layer(x.double())


def test_a_model_made_in_inference_mode_works():
    with torch.inference_mode():
        layer, x = Dense(24, 40), tokens(300)
        torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))


def test_copies_and_pickles_are_the_same_layer(layer):
    x = tokens(3)
    with torch.no_grad():
        for same in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            torch.testing.assert_close(same(x), layer(x))
    assert set(layer.state_dict()) == {"weight", "bias"}
