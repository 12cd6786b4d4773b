"""The tensors of a LAM: those of its configuration, and the base's, taken over weight by weight."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, BertConfig, DistilBertConfig, RobertaConfig, T5Config

from lam_model.folder.base import find_part
from lam_model.folder.build import PACKAGED_WEIGHTS
from lam_model.folder.tensors import join, read_config, shapes, start
from lam_model.model.configuration_lam import LamConfig
from lam_model.model.modeling_lam import LamModel
from lam_model.training.start import convert

FROZEN_OF_A_LAYER = {
    "delta_net_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm": "output.LayerNorm",
}


@pytest.mark.parametrize("which", ["tiny_base", "base"])
def test_the_shapes_are_those_of_the_model(which, request):
    config = read_config(request.getfixturevalue(which))
    with torch.device("meta"):
        model = LamModel(LamConfig(**config))
    assert shapes(config) == {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def test_the_part_that_is_packaged_makes_the_same_model_as_the_whole_base(base):
    part, whole = join(find_part(), PACKAGED_WEIGHTS), join(base, PACKAGED_WEIGHTS)
    assert part.keys() == whole.keys()
    assert all((part[name] == whole[name]).all() for name in whole)


def test_the_part_cannot_be_trained_from():
    with pytest.raises(ValueError, match=r"has no tensor 'encoder\.layer\.0\.attention\.self\.query\.weight'"):
        start(find_part())


def test_a_base_may_name_its_tensors_as_a_model_with_a_head_does(tiny_base, tmp_path):
    tensors = load_file(tiny_base / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(json.loads((tiny_base / "config.json").read_text())))
    save_file({f"bert.{name}": tensor for name, tensor in tensors.items()}, tmp_path / "model.safetensors")
    assert all((tensor == start(tiny_base)[name]).all() for name, tensor in start(tmp_path).items())


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
    assert LamConfig().to_dict() == LamConfig(**read_config(base)).to_dict()


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
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"must be a BERT encoder.*{named}"):
        read_config(tmp_path)
