"""What works where torch is not installed: all that only embeds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lam_model

ROOT = Path(__file__).parents[1]
TEXT = "The river rises in the hills. It falls into the sea, and nobody has seen it fall. " * 40
# Importing them fails, as where they are not installed.
WITHOUT = """
import sys
from importlib.machinery import PathFinder
MISSING = {"torch", "transformers", "sentence_transformers", "numba", "scipy", "sklearn", "pyarrow", "datasets", "onnx"}
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in MISSING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Finder)
import importlib.util
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name in MISSING else find_spec(name, *more)
"""


def run(code, *argv, cwd=ROOT, check=True):
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT + code, *map(str, argv)], capture_output=True, text=True, cwd=cwd, timeout=120
    )
    if check:
        assert result.returncode == 0, result.stderr
    return result


def lam(*argv, **more):
    return run("import lam_model.cli; sys.exit(lam_model.cli.main())", *argv, **more)


@pytest.fixture(scope="module")
def model():
    return lam_model.load(device="cpu")


def test_texts_become_vectors(model):
    rows = [json.loads(line) for line in lam("encode", "a river", TEXT).stdout.splitlines()]
    np.testing.assert_allclose([row["embedding"] for row in rows], model.encode(["a river", TEXT]), atol=1e-5)


def test_dims_and_int8(model):
    rows = [json.loads(line) for line in lam("encode", "a river", "--dim", "64", "--dtype", "int8").stdout.splitlines()]
    wanted = model.encode("a river")[:64]
    assert np.dot(rows[0]["embedding"], wanted / np.linalg.norm(wanted)) > 0.97


def test_a_stream_and_passages(model, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    lam("encode", "--stream", tmp_path / "text.txt", "-o", tmp_path / "v.npy")
    np.testing.assert_allclose(np.load(tmp_path / "v.npy")[0], model.encode(TEXT), atol=1e-5)
    (tmp_path / "texts.jsonl").write_text(json.dumps({"_id": "a", "text": TEXT}))
    lam("encode", "--file", tmp_path / "texts.jsonl", "--passages", "-o", tmp_path / "p.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    found = model.encode_passages(TEXT)
    assert [[row["start"], row["end"]] for row in rows] == found.offsets.tolist()
    np.testing.assert_allclose([row["embedding"] for row in rows], found.vectors, atol=1e-5)


def test_search_finds_what_it_finds_with_torch(tmp_path):
    corpus = tmp_path / "corpus.jsonl"
    lines = (ROOT / "demo" / "corpus.jsonl").read_text(encoding="utf-8").splitlines()[4:30]
    corpus.write_text("\n".join(lines), encoding="utf-8")
    argv = ("search", corpus, "How old is the universe?", "--no-cache")
    with_torch = [sys.executable, "-m", "lam_model.cli", *map(str, argv), "--backend", "torch"]
    wanted = subprocess.run(with_torch, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert lam(*argv).stdout == wanted


def test_a_folder_is_built_and_verified(tmp_path):
    lam("build", tmp_path / "lam")
    assert "golden vectors agree" in lam("verify", tmp_path / "lam").stdout
    rows = lam("encode", "a river", "--model", tmp_path / "lam").stdout
    assert json.loads(rows)["embedding"] == json.loads(lam("encode", "a river").stdout)["embedding"]


def test_streams_passages_and_document_vectors_in_python(model):
    code = """
import json, lam_model
encoder = lam_model.OnnxEncoder()
stream = lam_model.Stream(encoder)
for i in range(0, len(sys.argv[1]), 101):
    stream.feed(sys.argv[1][i : i + 101])
    saved = stream.state_dict()
    stream = lam_model.Stream(encoder)
    stream.load_state_dict(saved)
vectors = lam_model.document_vectors(encoder.encode_passages([sys.argv[1], "Another text. Of two."]))
print(json.dumps([stream.vector().tolist(), vectors.tolist()]))
"""
    vector, vectors = json.loads(run(code, TEXT).stdout)
    np.testing.assert_allclose(vector, model.encode(TEXT), atol=1e-5)
    wanted = lam_model.document_vectors(model.encode_passages([TEXT, "Another text. Of two."]))
    np.testing.assert_allclose(vectors, wanted, atol=1e-4)


@pytest.mark.parametrize("name", ["load", "LamModel", "LamConfig"])
def test_what_needs_torch_says_what_to_install_and_what_works_without(name):
    result = run(f"import lam_model; lam_model.{name}", check=False)
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert "pip install 'lam-model[torch]'" in last
    assert "lam_model.OnnxEncoder()" in last


@pytest.mark.parametrize("argv", [("eval", "STSBenchmark"), ("compare", "a"), ("encode", "a", "--backend", "torch")])
def test_commands_that_need_torch_say_so_in_a_sentence(argv):
    result = lam(*argv, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("lam: error: ")
    assert result.stderr.count("\n") == 1
    assert "pip install 'lam-model[" in result.stderr
