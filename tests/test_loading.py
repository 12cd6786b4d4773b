"""`load`: what it takes, what it refuses, and vectors that are the same in any company."""

from __future__ import annotations

import inspect
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

import lam_model
from lam_model import folder


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return folder.build(tmp_path_factory.mktemp("built") / "lam")


@pytest.fixture(scope="module")
def lam(built):
    return lam_model.load(built, device="cpu")


ODD_TEXTS = {
    "empty": "",
    "white space": " \t\n ",
    "control characters": "\x00\x01\x07\x1b",
    "lone surrogate": "a \ud800 b",
    "emoji": "👩‍👩‍👧 🙂",
    "no space": "x" * 1_000_000,
    "right to left": "\u202eשלום עולם مرحبا",
}


@pytest.mark.parametrize("name", ODD_TEXTS)
def test_odd_texts_give_the_same_unit_vector_in_any_batch(lam, name):
    alone = lam.encode(ODD_TEXTS[name])
    assert np.isfinite(alone).all()
    assert np.linalg.norm(alone) == pytest.approx(1, abs=1e-5)
    batch = lam.encode(["an ordinary sentence", ODD_TEXTS[name], "word " * 700], batch_size=3)
    np.testing.assert_allclose(batch[1], alone, atol=1e-5)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (None, "not NoneType"),
        (b"bytes", "not bytes"),
        (3, "not int"),
        ({"text": "a"}, "not dict"),
        (["a", None], "index 1 is NoneType"),
        (["a", b"b"], "index 1 is bytes"),
        ([["a", "b"]], "index 0 is list"),
        (["a", "b", 1.5], "index 2 is float"),
    ],
)
def test_what_is_no_text_is_refused_with_its_index(lam, texts, message):
    with pytest.raises(TypeError, match=message):
        lam.encode(texts)


def test_one_text_gives_a_vector_and_a_list_gives_rows(lam):
    assert lam.encode("a").shape == (384,)
    assert lam.encode(["a"]).shape == (1, 384)
    assert lam.encode(np.array(["a", "b"])).shape == (2, 384)
    assert isinstance(lam.encode("a", convert_to_tensor=True), torch.Tensor)


def test_queries_and_documents_are_checked_too(lam):
    with pytest.raises(TypeError, match="index 0 is NoneType"):
        lam.encode_query([None])
    np.testing.assert_allclose(lam.encode_document(["a"]), lam.encode(["a"]), atol=1e-6)


@pytest.mark.parametrize("name", ["sentences", "inputs"])
def test_the_texts_may_be_named(lam, name):
    if name not in inspect.signature(SentenceTransformer.encode).parameters:
        pytest.skip(f"this release of sentence-transformers does not call them {name}")
    np.testing.assert_allclose(lam.encode(**{name: "a"}), lam.encode("a"), atol=1e-6)
    with pytest.raises(TypeError, match="index 0 is int"):
        lam.encode(**{name: [1]})


def test_nothing_is_truncated_unless_a_limit_is_set(built):
    model = lam_model.load(built, device="cpu")
    text, longer = "word " * 600, "word " * 600 + "another end"
    assert np.abs(model.encode(text) - model.encode(longer)).max() > 1e-4
    model.max_seq_length = 256
    with pytest.warns(UserWarning, match="max_seq_length=256"):
        np.testing.assert_allclose(model.encode(text), model.encode(longer), atol=1e-6)
    model.max_seq_length = None
    assert np.abs(model.encode(text) - model.encode(longer)).max() > 1e-4


def test_memory_of_encode_does_not_grow_with_the_text(built):
    """No module sees the tokens' vectors of several blocks, unless they are what was asked for."""
    model = lam_model.load(built, device="cpu")
    texts, seen = ["word " * 1500 + "end", "a short one", "another " * 700], []
    kept = SentenceTransformer(str(built), device="cpu").encode(texts)
    model[1].register_forward_pre_hook(lambda _, args: seen.append(args[0]["token_embeddings"].shape[1]))
    np.testing.assert_allclose(model.encode(texts), kept, atol=1e-6)
    np.testing.assert_allclose(
        model.encode(texts[0], truncate_dim=64), kept[0, :64] / np.linalg.norm(kept[0, :64]), atol=1e-6
    )
    assert 0 < max(seen) < 10
    tokens = model.encode(texts[0], output_value="token_embeddings")
    assert tokens.shape == (1503, 384)
    vector = tokens.mean(0).numpy()
    np.testing.assert_allclose(vector / np.linalg.norm(vector), kept[0], atol=1e-6)
    with torch.no_grad():
        assert model(model.tokenizer(texts[:1], return_tensors="pt"))["token_embeddings"].shape == (1, 1503, 384)


def test_truncation_is_counted_and_warned_of_once(built):
    model = lam_model.load(built, device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.encode("word " * 600)  # without a limit
        model.max_seq_length = 12
        model.encode(["word " * 10, "short"])  # ten and [CLS] and [SEP]
    with pytest.warns(UserWarning, match=r"2 of 3 texts .* max_seq_length=12 tokens \(the longest has 22\)"):
        model.encode(["word " * 20, "short", "word " * 11])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.encode_document("word " * 20)
    assert model.truncated_texts == 3
    model.max_seq_length = 10
    with pytest.warns(UserWarning, match="1 of 1 texts"):  # of another limit
        model.encode("word " * 10)
    assert model.truncated_texts == 4


def test_truncation_is_refused_where_that_was_asked_for(built):
    model = lam_model.load(built, device="cpu", on_truncate="error")
    model.max_seq_length = 12
    message = "index 1 has 13 tokens, over max_seq_length=12"
    for call in (model.encode, model.encode_passages, model.encode_query):
        with pytest.raises(ValueError, match=message):
            call(["word " * 10, "word " * 11])
    with pytest.raises(ValueError, match="index 0 has 13 tokens"):  # a prompt is read too
        model.encode(["word " * 10], prompt="query ")
    assert model.encode("word " * 10).shape == (384,)
    assert model.truncated_texts == 0


def test_the_vectors_agree_with_the_base(lam, base):
    texts = ["Vitamin D and bone density in older adults", "How do I renew a passport?"]
    minilm = SentenceTransformer(str(base), device="cpu").encode(texts)
    assert ((lam.encode(texts) * minilm).sum(axis=1) > 0.93).all()


def test_base_only_differs(lam, built):
    base_only = lam_model.load(built, device="cpu", base_only=True)
    assert lam.encode("a short text") @ base_only.encode("a short text") < 0.9


def test_bfloat16_is_close(lam, built):
    model = lam_model.load(built, device="cpu", dtype="bfloat16")
    assert next(model.parameters()).dtype == torch.bfloat16
    vector = model.encode("a short text", convert_to_tensor=True).float().numpy()
    assert vector @ lam.encode("a short text") > 0.99


def test_packaged_weights_are_built_once(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path))
    lam_model.load(device="cpu")
    built = next((tmp_path / "lam").iterdir())
    before = (built / folder.WEIGHTS).stat().st_mtime_ns
    lam_model.load(device="cpu")
    assert (built / folder.WEIGHTS).stat().st_mtime_ns == before
    (built / folder.WEIGHTS).write_bytes(b"damaged")
    assert np.isfinite(lam_model.load(device="cpu").encode("a")).all()


def test_a_file_of_weights_is_loaded_and_distilled_are_the_packaged_ones(tmp_path, monkeypatch, lam):
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path))
    tensors = load_file(folder.PACKAGED_WEIGHTS)
    name = next(name for name in tensors if name.endswith("out_proj.weight"))
    save_file({**tensors, name: tensors[name] / 2}, tmp_path / "tuned.safetensors")
    vector, other = (
        lam_model.load(weights=weights, device="cpu").encode("a")
        for weights in ("distilled", tmp_path / "tuned.safetensors")
    )
    np.testing.assert_array_equal(vector, lam.encode("a"))
    assert vector @ other < 0.999


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"path_or_repo": "no-such-folder"}, FileNotFoundError, "neither a folder nor a name on the Hub"),
        ({"path_or_repo": "org/no-such-model"}, FileNotFoundError, "org/no-such-model is neither"),
        ({"path_or_repo": "org/lam", "revision": "nope"}, FileNotFoundError, "org/lam at revision nope"),
        ({"weights": "tuned"}, FileNotFoundError, "weights 'tuned' are neither a file nor 'distilled'"),
        ({"path_or_repo": "lam", "weights": "tuned"}, ValueError, "weights 'tuned' were given with lam"),
        ({"dtype": "int3"}, ValueError, "dtype is 'int3'"),
        ({"on_truncate": "cut"}, ValueError, "on_truncate is 'cut'"),
    ],
)
def test_what_cannot_be_loaded_is_named(arguments, error, message):
    with pytest.raises(error, match=message):
        lam_model.load(**arguments)


def test_a_revision_of_a_local_folder_is_refused(built):
    with pytest.raises(ValueError, match="leave it out"):
        lam_model.load(built, revision="main")


def test_a_damaged_folder_is_refused(built, tmp_path):
    copy = shutil.copytree(built, tmp_path / "lam")
    with open(copy / folder.WEIGHTS, "r+b") as file:
        file.seek(1_000_000)
        file.write(b"\xff\xff")
    with pytest.raises(ValueError, match=r"model\.safetensors was altered or damaged"):
        lam_model.load(copy)


@pytest.mark.parametrize("first", ["lam_model", "sentence_transformers"])
def test_importing_the_package_is_enough_for_sentence_transformers(built, first):
    second = {"lam_model": "sentence_transformers", "sentence_transformers": "lam_model"}[first]
    code = f"import {first}, {second}, sys; print(sentence_transformers.SentenceTransformer(sys.argv[1])[0].auto_model)"
    result = subprocess.run([sys.executable, "-c", code, str(built)], capture_output=True, text=True, timeout=300)
    assert "LamModel" in result.stdout, result.stderr


def test_importing_the_package_imports_neither_torch_nor_transformers():
    code = "import lam_model, sys; assert not {'torch', 'transformers', 'numba'} & sys.modules.keys()"
    assert subprocess.run([sys.executable, "-c", code], timeout=300).returncode == 0


def test_smaller_vectors_are_the_first_numbers_of_the_whole_ones(built):
    texts = ["A cat sleeps.", "Stocks fell sharply on Monday."]
    whole = lam_model.load(built).encode(texts)
    small = lam_model.load(built, dim=128)
    expected = whole[:, :128] / np.linalg.norm(whole[:, :128], axis=1, keepdims=True)
    assert np.allclose(small.encode(texts), expected, atol=1e-6)
    assert np.allclose(small.encode_query(texts[0]), expected[0], atol=1e-6)
    assert small.encode(texts).shape == (2, 128)
    assert np.allclose(lam_model.load(built).encode(texts, truncate_dim=128), expected, atol=1e-6)
    assert lam_model.load(built, dim=384).encode(texts) == pytest.approx(whole, abs=1e-6)


def test_smaller_vectors_are_the_same_of_streams_and_passages(built):
    small, text = lam_model.load(built, dim=64), "A cat sleeps on a mat. " * 40
    vector = small.encode(text)
    stream = lam_model.Stream(small)
    stream.feed(text)
    assert np.allclose(stream.vector(), vector, atol=1e-5)
    passages, whole = (model.encode_passages(text, size=50) for model in (small, lam_model.load(built)))
    for found, full in ((passages.vector, whole.vector), (passages.vectors, whole.vectors)):
        cut = full[..., :64]
        assert np.allclose(found, cut / np.linalg.norm(cut, axis=-1, keepdims=True), atol=1e-5)


def test_another_size_is_refused(built):
    with pytest.raises(ValueError, match="dim is 100: vectors have 384, 256, 128 or 64 numbers"):
        lam_model.load(built, dim=100)
    with pytest.raises(ValueError, match="truncate_dim is 512: vectors have"):
        lam_model.load(built).encode("x", truncate_dim=512)
