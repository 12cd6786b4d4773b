"""The graphs that the package brings: today's model, whatever its weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lam_model.folder.tensors import is_trained
from lam_model.model.configuration_lam import LamConfig
from lam_model.model.modeling_lam import LamModel
from lam_model.runtime.onnx_session import OnnxSession
from lam_model.runtime.onnx_source import GRAPHS, graph_name

pytest.importorskip("onnx")
from lam_export.graph import to_onnx
from lam_export.int8 import quantize
from lam_export.norms import with_plain_norms
from lam_export.weightless import weightless


def random_lam(**sizes):
    torch.manual_seed(1)
    model = LamModel(LamConfig(**sizes)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(torch.randn_like(parameter) * (0.05 if "bias" in name or "scale" in name else 0.02))
    return model, {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def inputs(vocab_size):
    rng = np.random.default_rng(0)
    ids = rng.integers(5, vocab_size, (3, 37))
    mask = np.ones_like(ids)
    mask[1, 20:] = mask[2, 1:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def sums(model, given, state=None, first=True):
    ids, mask = (torch.from_numpy(x) for x in given.values())
    with torch.no_grad():
        output = model.forward_block(ids, mask, state, first_block=first)
    return (output.last_hidden_state * mask[..., None]).sum(1).numpy(), output.state


@pytest.mark.parametrize("base_only", [False, True])
def test_the_packaged_graphs_compute_what_the_model_does_with_any_weights(base_only):
    """Fails when the model was changed: write them again with `lam export packaged lam_model/graphs`."""
    model, weights = random_lam(base_only=base_only)
    given = inputs(model.config.vocab_size)
    weights = {name: tensor for name, tensor in weights.items() if not (base_only and is_trained(name))}
    session = OnnxSession(GRAPHS / graph_name(base_only), weights)
    names = [] if base_only else [f"state_{i}" for i in range(model.config.num_hidden_layers)]
    total, *states = session.run(["present_sum", *(f"present_{name}" for name in names)], given)
    wanted, state = sums(model, given)
    np.testing.assert_allclose(total, wanted, rtol=1e-4, atol=2e-4)
    past = {f"past_{name}": state for name, state in zip(names, states, strict=True)}
    past |= {name.replace("state", "beginning"): state for name, state in past.items()}
    past["past_count"] = np.ones((3, 1), np.float32)
    (total,) = session.run(["present_sum"], given | past)
    np.testing.assert_allclose(total, sums(model, given, state, first=False)[0], rtol=1e-4, atol=2e-4)
    eight_bits = OnnxSession(GRAPHS / graph_name(base_only, int8=True), weights).run(["present_sum"], given)[0]
    wanted = sums(model, given)[0]
    cosine = (eight_bits * wanted).sum(1) / np.linalg.norm(eight_bits, axis=1) / np.linalg.norm(wanted, axis=1)
    assert cosine.min() > 0.98


@pytest.fixture(scope="module")
def tiny():
    model, weights = random_lam(
        vocab_size=80, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=80, block_size=64
    )
    return with_plain_norms(to_onnx(model)), weights


def test_weights_are_rounded_as_the_quantizer_rounds_them(tiny, tmp_path):
    graph, weights = tiny
    eight_bits = quantize(graph)
    (tmp_path / "with.onnx").write_bytes(eight_bits.SerializeToString())
    (tmp_path / "without.onnx").write_bytes(weightless(eight_bits, graph, weights).SerializeToString())
    found = [
        OnnxSession(tmp_path / name, given).run(["sentence_embedding"], inputs(80))[0]
        for name, given in (("with.onnx", None), ("without.onnx", weights))
    ]
    np.testing.assert_allclose(*found, atol=1e-6)


def test_a_graph_without_weights_is_small_and_says_where_it_needs_each(tiny, tmp_path):
    graph, weights = tiny
    bare = weightless(graph, graph, weights)
    external = {tensor.name for tensor in bare.graph.initializer if tensor.external_data}
    assert external == set(weights)
    assert not any(node.metadata_props or node.doc_string for node in bare.graph.node)


def test_a_constant_that_is_made_of_no_weight_is_refused(tiny):
    graph, weights = tiny
    others = {name: tensor + 1 for name, tensor in weights.items()}
    with pytest.raises(ValueError, match="is made of no weight"):
        weightless(graph, graph, others)
