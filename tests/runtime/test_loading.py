"""`load`: what it takes, what it refuses, and vectors that are the same in any company."""

from __future__ import annotations

import copy
import inspect
import math
import os
import pickle
import shutil
import subprocess
import sys
import warnings
from collections import UserDict
from concurrent.futures import ThreadPoolExecutor

import folders as folder
import numpy as np
import pandas
import pyarrow
import pytest
import torch
from datasets import Dataset
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

import lam_model


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
        ({"text": "a"}, "not a dict"),
        (UserDict(text="a"), "not a UserDict"),
        ({"a", "b"}, "not a set"),
        ({"a": 1}.keys(), "not a dict_keys"),
        (pandas.DataFrame({"text": ["a"]}), r"not a DataFrame: give one column, such as df\['text'\]"),
        (pyarrow.table({"text": ["a"]}), "not a Table: give one column"),
        (Dataset.from_dict({"text": ["a"]}), "not a Dataset: give one column"),
        (np.array([["a", "b"]]), "not ndarray"),
        (np.array("a"), "not ndarray"),
        (pandas.Series(["a", None]), "index 1 is"),
        (["a", None], "index 1 is NoneType"),
        (["a", b"b"], "index 1 is bytes"),
        ([["a", "b"]], "index 0 is list"),
        (["a", "b", 1.5], "index 2 is float"),
    ],
)
def test_what_is_no_text_is_refused_with_its_index(lam, texts, message):
    with pytest.raises(TypeError, match=message):
        lam.encode(texts)


@pytest.mark.parametrize(
    "texts",
    [
        ("a", "b"),
        np.array(["a", "b"]),
        np.array(["a", "b"], object),
        pandas.Series(["a", "b"], index=[7, 3]),
        pandas.Series(["a", "b"], dtype="category"),
        (text for text in "ab"),
        {"x": "a", "y": "b"}.values(),
        Dataset.from_dict({"text": ["a", "b"]})["text"],
    ],
    ids=lambda texts: type(texts).__name__,
)
def test_what_holds_texts_in_order_is_a_list_of_them(lam, texts):
    np.testing.assert_allclose(lam.encode(texts), lam.encode(["a", "b"]), atol=1e-6)


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
        ({"path_or_repo": "org/no-such-model"}, FileNotFoundError, "org/no-such-model is no folder"),
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


def test_a_model_is_recognised_by_its_type_as_tools_do_it(lam):
    """KeyBERT and BERTopic look at the type's name, others at its class."""
    assert "sentence_transformers" in str(type(lam))
    assert type(lam).__name__ == "SentenceTransformer"
    assert isinstance(lam, SentenceTransformer)
    assert lam.get_model_kwargs() == SentenceTransformer.get_model_kwargs(lam)


def test_no_limit_reads_as_infinity(built):
    model = lam_model.load(built, device="cpu")
    assert model.max_seq_length == math.inf
    assert isinstance(model.get_max_seq_length(), int)  # chonkie takes no infinity
    model.max_seq_length = 128
    assert model.max_seq_length == model.get_max_seq_length() == 128
    model.max_seq_length = None
    assert model.max_seq_length == math.inf
    model.save(path := str(built.parent / "saved"))
    card = (built.parent / "saved" / "README.md").read_text()
    assert "1000000000" not in card
    shutil.rmtree(path)


@pytest.mark.parametrize("limit", [None, 16])
def test_any_number_of_threads_may_make_calls_of_any_kind(built, limit):
    """Each call gives what it gives alone, and none raises: of `encode`, of passages and of streams."""
    model = lam_model.load(built, device="cpu", on_truncate="warn")
    model.max_seq_length = limit
    texts = ["river stone light " * 40, "a cat"] * 2

    def encode() -> np.ndarray:
        return model.encode(texts)

    def passages() -> np.ndarray:
        return np.concatenate([found.vectors for found in model.encode_passages(texts)])

    def stream() -> np.ndarray:
        stream = lam_model.Stream(model)
        stream.feed(texts[0])
        return stream.vector()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        calls = [encode, passages, stream, encode] * 12
        alone = {call: call() for call in (encode, passages, stream)}
        counted = model.truncated_texts
        model.truncated_texts = 0
        before = torch.get_num_threads()
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(lambda call: call(), calls))
    assert torch.get_num_threads() == before
    for call, found in zip(calls, results, strict=True):
        np.testing.assert_allclose(found, alone[call], atol=1e-5)
    assert model.truncated_texts == counted // 2 * 36  # 24 calls of encode, 12 of passages


def test_first_calls_at_once_are_right(built):
    """Before any call has settled the tokenizer."""
    texts = ["river stone light " * 40, "a cat"]
    for _ in range(3):
        model = lam_model.load(built, device="cpu")
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(lambda _, model=model: model.encode(texts), range(8)))
        for found in results:
            np.testing.assert_allclose(found, results[0], atol=1e-5)


def test_first_loads_at_once_give_one_folder(tmp_path):
    """By processes that do not know of each other, which may have one number in two containers."""
    code = "import lam_model; print(lam_model.load(device='cpu').encode('a')[:4].tolist())"
    environment = {**os.environ, "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-c", code]
    runs = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    vectors = {run.communicate(timeout=300)[0] for run in runs}
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert len(vectors) == 1
    (built,) = (tmp_path / "lam").iterdir()
    folder.check(built)


def test_threads_that_load_first_at_once_give_one_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path))
    with ThreadPoolExecutor(3) as pool:
        models = list(pool.map(lambda _: lam_model.load(device="cpu"), range(3)))
    (_,) = (tmp_path / "lam").iterdir()
    assert all(np.isfinite(model.encode("a")).all() for model in models)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
@pytest.mark.parametrize("first", [False, True], ids=["built", "first"])
@pytest.mark.parametrize("load", ["lam_model.load()", "lam_model.load(dtype='bfloat16')", "plain()"])
def test_a_process_may_be_forked_after_loading(tmp_path, first, load):
    """As `gunicorn --preload` does: threads that loading had started would be missing in the child, which waits."""
    code = f"""
import os, signal, sys
import lam_model
def plain():
    from sentence_transformers import SentenceTransformer
    return SentenceTransformer(str(lam_model.runtime.cache.cached()[0]))
import lam_model.runtime.cache
model = {load}
if (child := os.fork()) == 0:
    signal.alarm(60)
    model.encode(["a longer text " * 30] * 40)
    os._exit(0)
sys.exit(os.waitpid(child, 0)[1])
"""
    environment = {**os.environ, **({"HF_HOME": str(tmp_path)} if first else {})}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr


def test_kernels_are_compiled_where_nothing_can_be_kept(built, tmp_path):
    """A read-only installation, and no home: numba finds no folder for what it has compiled."""
    code = """
import sys
from numba.core import caching
for locator in caching.CacheImpl._locator_classes:
    locator.from_function = classmethod(lambda *_: None)
import lam_model
print(lam_model.load(sys.argv[1], device="cpu").encode(["a cat"] * 40).shape)
"""
    run = subprocess.run([sys.executable, "-c", code, str(built)], capture_output=True, text=True, timeout=300)
    assert run.stdout.strip() == "(40, 384)", run.stderr


def test_kernels_are_compiled_on_a_full_disk(built):
    code = """
import sys
from numba.core import caching
def full(*_):
    raise OSError(28, "No space left on device")
caching.IndexDataCacheFile.save = full
caching.IndexDataCacheFile.load = lambda *_: None
import lam_model
print(lam_model.load(sys.argv[1], device="cpu").encode(["a cat"] * 40).shape)
"""
    run = subprocess.run([sys.executable, "-c", code, str(built)], capture_output=True, text=True, timeout=300)
    assert run.stdout.strip() == "(40, 384)", run.stderr


@pytest.mark.parametrize("again", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_is_the_same_model(built, again):
    model = lam_model.load(built, device="cpu", dim=64)
    copied = again(model)
    np.testing.assert_array_equal(copied.encode("a cat"), model.encode("a cat"))
    assert copied.manifest == model.manifest


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_of_nothing_is_refused(lam, batch_size):
    with pytest.raises(ValueError, match=f"{batch_size}"):
        lam.encode_passages(["a"], batch_size=batch_size)
    with pytest.raises(ValueError, match=f"{batch_size}"):
        lam.encode(["a"], batch_size=batch_size)


def test_under_autocast_vectors_are_close(lam):
    text = "A cat sleeps on a mat. " * 60
    with torch.autocast("cpu", torch.bfloat16):
        passages, vector = lam.encode_passages(text), lam.encode(text, convert_to_tensor=True)
        stream = lam_model.Stream(lam)
        stream.feed(text)
        streamed = stream.vector()
    assert passages.vectors.dtype == np.float32
    assert passages.vector @ lam.encode_passages(text).vector > 0.99
    assert streamed @ lam.encode(text) > 0.99
    assert vector.float().numpy() @ lam.encode(text) > 0.99


def test_adapters_that_are_merged_are_seen(built):
    """PEFT writes to the data of a weight that has been used already."""
    peft = pytest.importorskip("peft")
    model = lam_model.load(built, device="cpu")
    before = model.encode(["a cat"] * 40)
    config = peft.LoraConfig(target_modules=["in_proj", "up"], init_lora_weights=False)
    adapted = peft.get_peft_model(model[0].auto_model, config).eval()
    unmerged = model.encode(["a cat"] * 40)
    adapted.merge_adapter()
    merged = model.encode(["a cat"] * 40)
    assert np.abs(unmerged - before).max() > 0.01
    np.testing.assert_allclose(merged, unmerged, atol=1e-4)
    adapted.unmerge_adapter()
    adapted.merge_and_unload()
    np.testing.assert_allclose(model.encode(["a cat"] * 40), unmerged, atol=1e-4)
