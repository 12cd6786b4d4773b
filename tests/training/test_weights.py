"""Files of DeltaNet weights."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from lam_model import cli
from lam_model.training.start import convert
from lam_model.training.weights import average, save, train_only_deltanet, trained


@pytest.fixture
def files(tmp_path):
    save_file({"a": torch.tensor([1.0, 2.0]).half()}, tmp_path / "one.safetensors")
    save_file({"a": torch.tensor([3.0, -2.0]).half()}, tmp_path / "two.safetensors")
    return tmp_path / "one.safetensors", tmp_path / "two.safetensors", tmp_path / "mean.safetensors"


def test_only_deltanet_layers_are_trained_and_saved(tiny_base, tmp_path):
    model = convert(tiny_base)
    train_only_deltanet(model)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == trained(model).keys()
    save(model, tmp_path / "w.safetensors")
    saved = load_file(tmp_path / "w.safetensors")
    assert saved.keys() == trained(model).keys()
    assert all(torch.equal(x, trained(model)[name].half()) for name, x in saved.items())
    assert (tmp_path / "w.safetensors").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(("share", "mean"), [(1.0, [1.0, 2.0]), (0.25, [2.5, -1.0]), (0.0, [3.0, -2.0])])
def test_average_counts_the_first_for_its_share(files, share, mean):
    assert cli.main(["train", "average", *map(str, files[2:]), *map(str, files[:2]), "--share", str(share)]) == 0
    found = load_file(files[2])["a"]
    assert found.dtype == torch.float16
    assert found.tolist() == mean


def test_average_refuses_what_has_no_mean(files, tmp_path):
    with pytest.raises(ValueError, match=r"share is 1\.5"):
        average(*files[:2], 1.5, files[2])
    with pytest.raises(FileNotFoundError, match=r"nowhere"):
        average(files[0], tmp_path / "nowhere", 0.5, files[2])
    save_file({"a": torch.zeros(3)}, tmp_path / "third.safetensors")
    with pytest.raises(ValueError, match="of different bases"):
        average(files[0], tmp_path / "third.safetensors", 0.5, files[2])
    assert not files[2].exists()


def test_a_damaged_file_is_named(files):
    files[1].write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"two\.safetensors is damaged"):
        average(*files[:2], 0.5, files[2])
