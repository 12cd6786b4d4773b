"""The exported graphs against torch, and the encoder that runs them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from lam_model import OnnxEncoder, load
from lam_model.folder import build
from lam_model.onnx_encoder import _batches

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

import lam_export  # noqa: E402  (needs onnx)

LENGTHS = (1, 2, 7, 33, 63, 64)


@pytest.fixture(scope="module")
def exported(tmp_path_factory, tiny_base, tiny_weights):
    """A model folder of the tiny base with both graphs in it, and what was measured of them."""
    folder = build(tmp_path_factory.mktemp("exported") / "lam", tiny_weights, tiny_base)
    return folder, lam_export.export(folder)


@pytest.fixture(scope="module")
def folder(exported):
    return exported[0]


@pytest.fixture(scope="module", params=["model", "model_base"])
def variant(request, folder):
    """A graph's session, and the model that it was made from."""
    session = onnxruntime.InferenceSession(folder / "onnx" / f"{request.param}.onnx")
    return session, load(folder, device="cpu", base_only=request.param == "model_base")


@pytest.fixture(scope="module")
def texts(sentences):
    return ["", "ba", *(sentences(1, words, seed=words)[0] for words in (3, 20, 61, 62, 63, 70, 150, 400))]


@pytest.mark.parametrize("length", LENGTHS)
def test_a_call_with_two_inputs_gives_torchs_hidden_states(variant, length):
    session, model = variant
    ids = torch.randint(5, 80, (3, length), generator=torch.Generator().manual_seed(length))
    mask = torch.ones_like(ids)
    mask[2, length // 2 + 1 :] = 0
    embedding, hidden = session.run(
        ["sentence_embedding", "last_hidden_state"], {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}
    )
    with torch.no_grad():
        features = model({"input_ids": ids, "attention_mask": mask})
    real = mask.bool().numpy()
    assert np.abs(hidden - features["token_embeddings"].numpy())[real].max() < 1e-4
    assert np.abs(embedding - features["sentence_embedding"].numpy()).max() < 1e-5


def test_graphs_are_compared_with_torch_on_200_texts_as_they_are_written(exported):
    folder, figures = exported
    assert [graph["file"] for graph in figures] == ["model.onnx", "model_base.onnx"]
    for graph in figures:
        assert graph["texts"] == 200
        assert graph["largest_difference"] < 1e-5
        assert graph["bytes"] == (folder / "onnx" / graph["file"]).stat().st_size
    assert lam_export.verify(folder) == figures


def test_a_graph_of_other_weights_is_refused(folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    shutil.copy(other / "onnx" / "model_base.onnx", other / "onnx" / "model.onnx")
    with pytest.raises(ValueError, match=r"model\.onnx differs from torch"):
        lam_export.verify(other)


def test_a_graph_that_fails_is_not_left(folder, tmp_path, monkeypatch):
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    shutil.rmtree(other / "onnx")
    monkeypatch.setattr("lam_export.check.TOLERANCE", -1)
    with pytest.raises(ValueError, match="differs from torch"):
        lam_export.export(other, ["base"])
    assert list((other / "onnx").iterdir()) == []


def test_the_recurrence_is_one_operator_a_layer_and_direction(folder):
    import onnx

    graph = onnx.load(folder / "onnx" / "model.onnx").graph
    operators = [node.op_type for node in graph.node]
    assert operators.count("LinearAttention") == 2 * 3
    assert not {"Loop", "Scan"} & set(operators)
    base_only = onnx.load(folder / "onnx" / "model_base.onnx").graph
    assert "LinearAttention" not in [node.op_type for node in base_only.node]


@pytest.mark.parametrize(("file", "base_only"), [("onnx/model.onnx", False), ("onnx/model_base.onnx", True)])
def test_texts_of_any_length_have_torchs_vectors(folder, texts, file, base_only):
    expected = load(folder, device="cpu", base_only=base_only).encode(texts)
    encoder = OnnxEncoder(folder, file)
    for batch_tokens in (1, 200, 10_000):
        assert np.abs(encoder.encode(texts, batch_tokens) - expected).max() < 1e-5


def test_a_string_gives_one_vector_and_no_texts_give_none(folder):
    encoder = OnnxEncoder(folder)
    assert encoder.encode("ba de").shape == (48,)
    assert encoder.encode([]).shape == (0, 48)


def test_what_is_no_string_is_refused(folder):
    with pytest.raises(TypeError, match="index 1 is int"):
        OnnxEncoder(folder).encode(["ba", 3])


def test_many_threads_share_an_encoder(folder, texts):
    encoder = OnnxEncoder(folder, threads=1)
    expected = encoder.encode(texts)
    with ThreadPoolExecutor(16) as pool:
        for vectors in pool.map(encoder.encode, [texts] * 32):
            np.testing.assert_array_equal(vectors, expected)


def test_it_runs_without_torch_and_transformers(folder, tmp_path):
    code = """
import sys
for name in ("torch", "transformers", "sentence_transformers", "huggingface_hub", "wrapt"):
    sys.modules[name] = None  # importing it fails
import lam_model, numpy
numpy.save(sys.argv[2], lam_model.OnnxEncoder(sys.argv[1]).encode(["ba de fi"]))
"""
    output = tmp_path / "vectors.npy"
    subprocess.run([sys.executable, "-c", code, str(folder), str(output)], check=True)
    np.testing.assert_allclose(np.load(output), OnnxEncoder(folder).encode(["ba de fi"]), atol=1e-6)


def test_a_missing_graph_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model\.onnx is missing: write the graphs"):
        OnnxEncoder(tmp_path)


def test_batches_hold_rows_of_similar_length_within_the_budget():
    lengths = [5, 1, 9, 3, 700, 2]
    batches = list(_batches(lengths, 12, 8))
    assert sorted(row for rows in batches for row in rows) == list(range(6))
    for rows in batches:
        assert len(rows) == 1 or len(rows) * min(8, max(lengths[row] for row in rows)) <= 12
