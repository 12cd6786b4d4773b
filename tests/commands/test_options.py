"""Which runtime a command encodes with."""

from __future__ import annotations

import argparse
from importlib.util import find_spec

import pytest

from lam_model.commands import options

NOTHING = {"model": None, "revision": None, "device": None, "dtype": None, "backend": None, "base_only": False}


@pytest.fixture
def chosen(monkeypatch):
    """Calls `load_encoder` with some options; gives the runtime, and what an `OnnxEncoder` was asked for."""

    def choose(torch=True, soon=False, workers=0, **given):
        found = {name: None for name in ("torch", "sentence_transformers") if not torch}
        monkeypatch.setattr(options, "find_spec", lambda name: found.get(name, True) and find_spec(name))
        monkeypatch.setattr(options, "load_model", lambda args: ("torch", None))
        monkeypatch.setattr("lam_model.runtime.onnx_encoder.OnnxEncoder", lambda *args, **more: ("onnx", (*args, more)))
        return options.load_encoder(argparse.Namespace(**NOTHING | given), soon, workers)

    return choose


def test_torch_is_chosen_where_it_is_installed(chosen):
    assert chosen()[0] == "torch"
    assert chosen(dtype="bfloat16")[0] == "torch"


def test_onnx_runtime_is_chosen_where_torch_is_not(chosen):
    assert chosen(torch=False)[0] == "onnx"


def test_onnx_runtime_is_chosen_for_little_unless_an_option_is_torchs(chosen):
    assert chosen(soon=True)[0] == "onnx"
    assert chosen(soon=True, dtype="int8", device="cpu")[0] == "onnx"
    for given in ({"device": "cuda"}, {"dtype": "bfloat16"}, {"backend": "torch"}):
        assert chosen(soon=True, **given)[0] == "torch"


def test_the_encoder_is_given_the_options(chosen, tmp_path):
    runtime, (folder, more) = chosen(backend="onnx", model=str(tmp_path), dtype="int8", base_only=True, dim=64)
    assert runtime == "onnx"
    assert folder == tmp_path
    assert more == {"dtype": "int8", "base_only": True, "dim": 64, "threads": None}


def test_workers_share_the_cores_on_onnx_runtime(chosen, monkeypatch):
    monkeypatch.setattr("lam_model.corpus.workers.cores", lambda: 5)
    runtime, (_, more) = chosen(workers=2)
    assert runtime == "onnx"
    assert more["threads"] == 2
    with pytest.raises(ValueError, match="leave --backend torch out"):
        chosen(workers=2, backend="torch")


def test_a_device_is_refused_on_onnx_runtime(chosen):
    with pytest.raises(ValueError, match="device is 'cuda': ONNX Runtime runs LAM on the CPU"):
        chosen(backend="onnx", device="cuda")


def test_a_folder_that_is_not_there_is_refused(chosen):
    with pytest.raises(FileNotFoundError, match="nowhere is neither a folder nor a name on the Hub"):
        chosen(backend="onnx", model="nowhere")
