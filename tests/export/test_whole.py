"""Graphs of whole texts against torch, on a tiny random LAM."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lam_model.model.configuration_lam import LamConfig
from lam_model.model.modeling_lam import LamModel

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from lam_export.graph import to_onnx  # noqa: E402  (needs onnx)
from lam_export.int8 import quantize  # noqa: E402
from lam_export.norms import with_plain_norms  # noqa: E402
from lam_export.portable import portable  # noqa: E402
from lam_export.whole import whole  # noqa: E402

BLOCK = 64
BATCHES = ([1], [63], [64], [65], [130], [2, 2], [130, 1, 64], [1, 65, 63, 200, 128])  # lengths of the texts
FORMS = ("full", "base", "quantized", "portable")


@pytest.fixture(scope="module")
def models(lively_gates):
    """The full model, and the same without its DeltaNet layers."""
    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 80}
    config = LamConfig(vocab_size=100, type_vocab_size=2, block_size=BLOCK, **sizes)
    torch.manual_seed(0)
    full = lively_gates(LamModel(config))
    base = LamModel(LamConfig(**config.to_dict() | {"base_only": True})).eval()
    base.load_state_dict(full.state_dict())
    return {"full": full, "base": base}


@pytest.fixture(scope="module")
def steps(models):
    """The step graph in each of its forms."""
    graphs = {name: to_onnx(model) for name, model in models.items()}
    plain = {name: with_plain_norms(graph) for name, graph in graphs.items()}
    config = models["full"].config
    standard = portable(graphs["full"], config.num_attention_heads, config.hidden_size)
    return plain | {"portable": standard, "quantized": quantize(plain["full"])}


def batch(lengths):
    """Token ids and mask of texts, padded on the right with tokens that must not be read."""
    ids = torch.randint(5, 80, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(sum(lengths)))
    return ids, (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()


def run(graph, ids, mask):
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    assert [value.name for value in session.get_inputs()] == ["input_ids", "attention_mask"]
    assert [value.name for value in session.get_outputs()] == ["last_hidden_state", "sentence_embedding"]
    return session.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})


@pytest.mark.parametrize("lengths", BATCHES, ids=str)
@pytest.mark.parametrize("form", ["full", "base", "portable"])
def test_texts_of_any_length_have_torchs_hidden_states(steps, models, form, lengths):
    ids, mask = batch(lengths)
    hidden_states, embeddings = run(whole(steps[form], BLOCK), ids, mask)
    model = models["base" if form == "base" else "full"]
    with torch.no_grad():
        expected = model(ids, mask).last_hidden_state
        means = torch.nn.functional.normalize(model.mean(ids, mask), dim=-1)
    assert hidden_states.shape == expected.shape
    assert np.isfinite(hidden_states).all()  # pads too: others multiply them by zero
    assert np.abs(hidden_states - expected.numpy())[mask.bool().numpy()].max() < 1e-5
    assert np.abs(embeddings - means.numpy()).max() < 1e-5


@pytest.mark.parametrize("length", [1, 64, 65, 200])
@pytest.mark.parametrize("form", FORMS)
def test_it_is_the_step_graph_block_by_block(steps, form, length):
    ids, mask = batch([length])
    session = onnxruntime.InferenceSession(steps[form].SerializeToString())
    carried = [value.name for value in session.get_outputs() if value.name.startswith("present_")]
    shapes = {value.name: value.shape[1:] for value in session.get_inputs() if value.name.startswith("past_")}
    past = {name: np.zeros((1, *shape), np.float32) for name, shape in shapes.items()}
    read = []
    for start in range(0, length, BLOCK):
        block = {"input_ids": ids[:, start : start + BLOCK], "attention_mask": mask[:, start : start + BLOCK]}
        inputs = {name: tensor.numpy() for name, tensor in block.items()} | past
        hidden_states, embedding, *present = session.run(["last_hidden_state", "sentence_embedding", *carried], inputs)
        past |= {name.replace("present", "past"): x for name, x in zip(carried, present, strict=True)}
        if not start:
            past |= {name.replace("state", "beginning"): x for name, x in past.items() if "state" in name}
        read.append(hidden_states)
    found = run(whole(steps[form], BLOCK), ids, mask)
    np.testing.assert_allclose(found[0], np.concatenate(read, axis=1), atol=1e-6)
    np.testing.assert_allclose(found[1], embedding, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_no_weight_is_copied(steps, form):
    step = steps[form]
    before = step.ByteSize()
    made = whole(step, BLOCK)
    assert made.ByteSize() <= 1.01 * before
    assert step.ByteSize() == before
    (loop,) = (node for node in made.graph.node if node.op_type == "Loop")
    assert not loop.attribute[0].g.initializer


@pytest.mark.parametrize("form", FORMS)
def test_it_is_valid_and_runs_without_a_warning(steps, form, capfd):
    import onnx

    graph = whole(steps[form], BLOCK)
    onnx.checker.check_model(graph, full_check=True)
    run(graph, *batch([130, 1, 64]))
    assert capfd.readouterr() == ("", "")
