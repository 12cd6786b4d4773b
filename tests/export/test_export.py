"""The exported graphs against torch, and the encoder that runs them."""

from __future__ import annotations

import copy
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
import torch
from folders import build, check

from lam_model import OnnxEncoder, load
from lam_model.folder.manifest import check_files

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

import lam_export  # noqa: E402  (needs onnx)

LENGTHS = (1, 2, 7, 33, 63, 64)


@pytest.fixture(scope="module")
def exported(tmp_path_factory, tiny_base, tiny_weights):
    """A model folder of the tiny base with all graphs in it, and what was measured of them."""
    folder = build(tmp_path_factory.mktemp("exported") / "lam", tiny_weights, tiny_base)
    return folder, lam_export.export(folder, int8=True, standard=True)


@pytest.fixture(scope="module")
def folder(exported):
    return exported[0]


@pytest.fixture(scope="module", params=["model", "model_base", "step", "step_base"])
def variant(request, folder):
    """A graph's session, and the model that it was made from."""
    session = onnxruntime.InferenceSession(folder / "onnx" / f"{request.param}.onnx")
    return session, load(folder, device="cpu", base_only="_base" in request.param)


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
    forms = ("", "_base", "_portable", "_quantized", "_base_quantized")
    names = {f"{kind}{form}.onnx" for kind in ("model", "step") for form in forms}
    assert {graph["file"] for graph in figures} == names
    for graph in figures:
        assert graph["texts"] == 200
        assert graph["bytes"] == (folder / "onnx" / graph["file"]).stat().st_size
        if "_quantized" in graph["file"]:
            assert 0.99 < graph["cosine"] < 1 - 1e-6  # it is another graph
        else:
            assert graph["largest_difference"] < 1e-5
    assert lam_export.verify(folder) == sorted(figures, key=lambda graph: folder / "onnx" / graph["file"])
    check(folder)
    assert {f"onnx/{graph['file']}" for graph in figures} <= set(check_files(folder)["sha256"])


@pytest.mark.parametrize("altered", ["model.onnx", "step.onnx"])
def test_a_graph_of_other_weights_is_refused(folder, tmp_path, altered):
    other, of_base = tmp_path / "other", altered.replace(".", "_base.")
    shutil.copytree(folder, other, ignore=shutil.ignore_patterns("*.onnx"))
    shutil.copy(folder / "onnx" / of_base, other / "onnx" / altered)
    with pytest.raises(ValueError, match=rf"{altered} was altered or damaged"):
        lam_export.verify(other)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["sha256"][f"onnx/{altered}"] = manifest["sha256"][f"onnx/{of_base}"]
    (other / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=rf"{altered} differs from torch"):
        lam_export.verify(other)


def test_an_altered_graph_is_not_loaded(folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    shutil.copy(other / "onnx" / "step_base.onnx", other / "onnx" / "step.onnx")
    with pytest.raises(ValueError, match=r"step\.onnx was altered or damaged"):
        load(other, backend="onnx")


def test_a_graph_that_fails_is_not_left(folder, tmp_path, monkeypatch):
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    shutil.rmtree(other / "onnx")
    monkeypatch.setattr("lam_export.check.TOLERANCE", -1)
    with pytest.raises(ValueError, match=r"onnx/step_base\.onnx differs from torch"):
        lam_export.export(other, ["base"])
    assert list((other / "onnx").iterdir()) == []
    monkeypatch.undo()
    monkeypatch.setattr("lam_export.check.INT8_COSINE", 1.01)
    with pytest.raises(ValueError, match=r"onnx/step_base_quantized\.onnx has a cosine of"):
        lam_export.export(other, ["base"], int8=True)
    assert sorted(path.name for path in (other / "onnx").iterdir()) == ["model_base.onnx", "step_base.onnx"]


def test_the_recurrence_is_one_operator_a_layer_and_direction(folder):
    import onnx

    graph = onnx.load(folder / "onnx" / "step.onnx").graph
    operators = [node.op_type for node in graph.node]
    assert operators.count("LinearAttention") == 2 * 3
    assert not {"Loop", "Scan"} & set(operators)
    base_only = onnx.load(folder / "onnx" / "step_base.onnx").graph
    assert "LinearAttention" not in [node.op_type for node in base_only.node]


@pytest.mark.parametrize("kind", ["model", "step"])
def test_the_portable_graphs_have_standard_operators_only(folder, kind):
    import onnx

    model = onnx.load(folder / "onnx" / f"{kind}_portable.onnx")
    assert [opset.domain for opset in model.opset_import] == [""]
    loops = [node for node in model.graph.node if node.op_type == "Loop"]
    nodes = loops[0].attribute[0].g.node if loops else model.graph.node
    assert bool(loops) == (kind == "model")
    assert {node.domain for node in nodes} == {""}
    assert not model.functions
    assert [node.op_type for node in nodes].count("Scan") == 2 * 3


def test_int8_graphs_are_smaller(folder):
    for name in ("model", "model_base", "step", "step_base"):
        sizes = [(folder / "onnx" / f"{name}{suffix}.onnx").stat().st_size for suffix in ("", "_quantized")]
        assert sizes[1] < sizes[0]


@pytest.mark.parametrize(
    ("file", "base_only"),
    [("onnx/step.onnx", False), ("onnx/step_base.onnx", True), ("onnx/step_portable.onnx", False)],
)
def test_texts_of_any_length_have_torchs_vectors(folder, texts, file, base_only):
    expected = load(folder, device="cpu", base_only=base_only).encode(texts)
    encoder = OnnxEncoder(folder, file)
    for batch_tokens in (1, 200, 10_000):
        assert np.abs(encoder.encode(texts, batch_tokens) - expected).max() < 1e-5


@pytest.mark.parametrize("base_only", [False, True])
def test_load_gives_a_sentence_transformer_on_onnx_runtime(folder, texts, base_only):
    model = load(folder, backend="onnx", base_only=base_only)
    torch_model = load(folder, device="cpu", base_only=base_only)
    assert np.abs(model.encode(texts) - torch_model.encode(texts)).max() < 1e-5
    assert model.encode(texts, convert_to_tensor=True).shape == (len(texts), 48)
    assert model.similarity(model.encode(texts[1]), model.encode(texts[1])).item() == pytest.approx(1, abs=1e-6)
    assert model.manifest == torch_model.manifest
    with pytest.raises(TypeError, match="index 1 is int"):
        model.encode(["ba", 3])


def test_int8_is_a_dtype_of_onnx_runtime(folder, texts):
    int8, exact = load(folder, backend="onnx", dtype="int8"), load(folder, backend="onnx")
    assert 1e-5 < np.abs(int8.encode(texts) - exact.encode(texts)).max() < 0.1
    assert int8.key != exact.key


def test_load_on_onnx_runtime_cuts_where_torch_does(folder, texts):
    models = [load(folder, backend="onnx"), load(folder, device="cpu")]
    for model in models:
        model.max_seq_length = 20
    vectors = [model.encode(texts) for model in models]
    assert np.abs(vectors[0] - vectors[1]).max() < 1e-5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"backend": "tpu"}, "must be torch or onnx"),
        ({"backend": "onnx", "dtype": "bfloat16"}, "must be one of float32, int8"),
        ({"backend": "onnx", "device": "cuda"}, "on the CPU"),
        ({"dtype": "int8"}, "must be one of float32, bfloat16"),
    ],
)
def test_what_onnx_runtime_cannot_do_is_said(folder, wrong, message):
    with pytest.raises(ValueError, match=message):
        load(folder, **wrong)


def test_load_without_a_graph_says_how_to_get_one(tmp_path, folder):
    other = tmp_path / "other"
    shutil.copytree(folder, other, ignore=shutil.ignore_patterns("onnx"))
    with pytest.raises(FileNotFoundError, match=r"step\.onnx is missing.*write graphs with `lam export onnx"):
        load(other, backend="onnx")


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
    with pytest.raises(FileNotFoundError, match=r"other\.onnx is missing: write the graphs"):
        OnnxEncoder(tmp_path, "onnx/other.onnx")


def test_a_graph_of_whole_texts_is_refused(folder):
    with pytest.raises(ValueError, match=r"model\.onnx reads whole texts at once: give the graph of a block"):
        OnnxEncoder(folder, "onnx/model.onnx")


@pytest.mark.parametrize(
    ("arguments", "with_torch"),
    [(["a cat"], False), (["a cat", "--backend", "onnx"], False), (["a cat", "--backend", "torch"], True)],
)
def test_the_command_encodes_on_onnx_runtime_without_torch(folder, arguments, with_torch):
    code = "import sys; from lam_model import cli; cli.main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    command = [sys.executable, "-c", code, "encode", *arguments, "--model", str(folder)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == with_torch, run.stderr
    assert np.allclose(json.loads(run.stdout)["embedding"], load(folder).encode("a cat"), atol=1e-5)


def test_files_are_encoded_in_torch_unless_told_otherwise(folder, tmp_path):
    """Which may have a GPU."""
    (tmp_path / "a.txt").write_text("a cat")
    code = "import sys; from lam_model import cli; cli.main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    command = [sys.executable, "-c", code, "encode", "--file", str(tmp_path / "a.txt"), "--model", str(folder)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1


@pytest.mark.parametrize(("eps", "replaced"), [(1e-12, True), (0.1, False)])
def test_norms_in_plain_operators_are_the_same_function(eps, replaced):
    import onnx
    from lam_export.norms import with_plain_norms

    norm = torch.nn.LayerNorm(48, eps=eps).eval()
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = torch.randn(2, 5, 48)
    x[0, 0] = 3.0  # all alike
    program = torch.onnx.export(norm, (x,), dynamo=True, opset_version=20, verbose=False)
    assert [node.op_type for node in program.model_proto.graph.node] == ["LayerNormalization"]
    plain = with_plain_norms(program.model_proto)
    onnx.checker.check_model(plain)
    assert replaced == ("LayerNormalization" not in {node.op_type for node in plain.graph.node})
    session = onnxruntime.InferenceSession(plain.SerializeToString())
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(found, norm(x).detach().numpy(), atol=2e-6)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_on_onnx_runtime_is_the_same_model(folder, again):
    model = load(folder, backend="onnx")
    texts = ["ba de fi", "go " * 200]
    np.testing.assert_array_equal(again(model).encode(texts), model.encode(texts))
    np.testing.assert_array_equal(again(OnnxEncoder(folder)).encode(texts), model.encode(texts))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_a_process_may_be_forked_after_onnx_runtime_was_used(folder):
    code = """
import os, signal, sys, lam_model
encoder = lam_model.OnnxEncoder(sys.argv[1], threads=2)
before = encoder.encode(["ba de fi"] * 40)
if (child := os.fork()) == 0:
    signal.alarm(60)
    os._exit(not (encoder.encode(["ba de fi"] * 40) == before).all())
sys.exit(os.waitpid(child, 0)[1])
"""
    run = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("limit", [None, 16])
def test_threads_on_onnx_runtime_share_one_model(folder, limit):
    model = load(folder, backend="onnx")
    model.max_seq_length = limit
    texts = ["ba de fi " * 40, "go"] * 4
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        alone = model.encode(texts)
        with ThreadPoolExecutor(8) as pool:
            for found in pool.map(lambda _: model.encode(texts), range(64)):
                np.testing.assert_allclose(found, alone, atol=1e-5)


def test_a_text_that_has_ended_is_left_out_of_the_batch(folder):
    """And mixtures of any lengths give what each text gives alone."""
    encoder = OnnxEncoder(folder)
    lengths = [700, *[2] * 20, 63, 62, 61, 150, 128]
    texts = ["ba " * length for length in lengths]
    numbers, run = [], encoder._session.run

    def counted(outputs, inputs):
        numbers.append(inputs["input_ids"].size)
        return run(outputs, inputs)

    encoder._session.run = counted
    together = encoder.embed_tokens(encoder.tokenize(texts))
    real = sum(map(len, encoder.tokenize(texts)))
    assert sum(numbers) <= 1.15 * real + 64 * len(numbers)
    assert sum(numbers) < 0.4 * len(lengths) * max(lengths)
    for text, found in zip(texts, together, strict=True):
        np.testing.assert_allclose(found, encoder.encode(text), atol=1e-5)


def test_export_shows_its_progress_and_nothing_else(tmp_path, tiny_base, tiny_weights):
    """To a terminal; what is no terminal gets nothing."""
    pty, fcntl, termios = map(pytest.importorskip, ("pty", "fcntl", "termios"))
    folder = build(tmp_path / "lam", tiny_weights, tiny_base)
    command = [sys.executable, "-c", "import sys, lam_model.cli; sys.exit(lam_model.cli.main())", "export"]
    write = [*command, "onnx", folder, "--variant", "base", "--quantize", "int8"]
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 120, 0, 0))  # rows, columns: none at first
    with subprocess.Popen(write, stdout=subprocess.DEVNULL, stderr=theirs) as run:
        os.close(theirs)
        shown = b""
        with suppress(OSError), open(ours, "rb", buffering=0) as terminal:  # its end is an error
            while piece := terminal.read(65536):
                shown += piece
    assert run.returncode == 0
    assert b"tracing the base variant" in shown
    assert b"5/5" in shown
    assert all(b"step" in line for line in shown.splitlines() if line.strip())
    assert subprocess.run([*command, "verify", folder], capture_output=True).stderr == b""
