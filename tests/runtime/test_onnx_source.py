"""Which graph a model folder is run with, and with which weights."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from folders import MANIFEST, WEIGHTS, build

from lam_model.folder.base import sha256
from lam_model.runtime.onnx_encoder import OnnxEncoder
from lam_model.runtime.onnx_source import GRAPHS, of_folder, packaged

TEXTS = ["a river", "", "naïve café — 東京 🙂 ½", "The cell divides. " * 300]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build(tmp_path_factory.mktemp("source") / "lam")


@pytest.fixture
def copy(built, tmp_path):
    return shutil.copytree(built, tmp_path / "lam")


def test_a_folder_of_the_packaged_sizes_runs_in_the_packaged_graph(built):
    source = of_folder(built)
    assert source.graph.parent == GRAPHS
    assert source.made_of["deltanet_sha256"] == packaged().made_of["deltanet_sha256"]
    np.testing.assert_allclose(OnnxEncoder(built).encode(TEXTS), OnnxEncoder().encode(TEXTS), atol=1e-6)


def test_a_folders_own_graph_is_taken_even_under_its_earlier_name(copy):
    for name in ("onnx/model.onnx", "onnx/step.onnx"):
        (copy / "onnx").mkdir(exist_ok=True)
        (copy / name).write_bytes(b"a graph")
        manifest = json.loads((copy / MANIFEST).read_text())
        manifest["sha256"][name] = sha256(copy / name)
        (copy / MANIFEST).write_text(json.dumps(manifest))
        assert of_folder(copy).graph == copy / name
        assert of_folder(copy).tensors is None
        assert of_folder(copy, base_only=True).graph.parent == GRAPHS
    with pytest.raises(ValueError, match=r"step\.onnx cannot be run .*: export it again"):
        OnnxEncoder(copy)
    (copy / "onnx" / "step.onnx").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"step\.onnx was altered or damaged"):
        OnnxEncoder(copy)


def test_a_folder_of_other_sizes_needs_its_own_graph(tiny_base, tiny_weights, tmp_path):
    folder = build(tmp_path / "lam", tiny_weights, tiny_base)
    with pytest.raises(FileNotFoundError, match="of other sizes: write graphs with `lam export onnx"):
        OnnxEncoder(folder)


def test_damaged_weights_are_not_run(copy):
    data = bytearray((copy / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (copy / WEIGHTS).write_bytes(data)
    with pytest.raises(ValueError, match=r"model\.safetensors was altered or damaged"):
        OnnxEncoder(copy)


def test_the_key_changes_with_whatever_changes_the_vectors(built):
    options = ({}, {"dtype": "int8"}, {"base_only": True}, {"dim": 128})
    keys = [OnnxEncoder(folder, **more).key for folder in (None, built) for more in options]
    assert len(set(keys)) == len(keys)
    assert OnnxEncoder().key == keys[0]


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="dtype is 'bfloat16': it must be one of float32, int8"):
        OnnxEncoder(dtype="bfloat16")
    with pytest.raises(ValueError, match="dim is 100: vectors have 384, 256, 128 or 64 numbers"):
        OnnxEncoder(dim=100)
    with pytest.raises(FileNotFoundError, match=r"nowhere.config\.json is missing"):
        OnnxEncoder("nowhere")
