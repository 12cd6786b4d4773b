"""`Stream`: the vector of a text that is read in pieces is that of the text read at once."""

from __future__ import annotations

import json
import random
import shutil

import folders as folder
import numpy as np
import pytest
import torch
from conftest import BLOCK
from sentence_transformers import SentenceTransformer

import lam_model
from lam_model import Stream
from lam_model.texts import clean


@pytest.fixture(scope="module")
def tiny(tiny_base, tiny_weights, lively_gates, tmp_path_factory):
    model = lam_model.load(folder.build(tmp_path_factory.mktemp("tiny") / "lam", tiny_weights, tiny_base), device="cpu")
    lively_gates(model[0].auto_model)
    return model


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    return lam_model.load(folder.build(tmp_path_factory.mktemp("built") / "lam"), device="cpu")


def streamed(model, pieces) -> np.ndarray:
    stream = Stream(model)
    for piece in pieces:
        stream.feed(piece)
    return stream.vector()


def cut(text: str, seed: int, most: int) -> list[str]:
    rng, pieces = random.Random(seed), []
    while text:
        length = rng.randint(0, most)
        pieces.append(text[:length])
        text = text[length:]
    return pieces


@pytest.mark.parametrize("extra", range(-4, 3))
def test_blocks_end_where_they_end_at_once(tiny, sentences, extra):
    # [CLS] and so many words, then [SEP]: within the second block, at its end, or alone in the third.
    text = sentences(1, 2 * BLOCK + extra)[0]
    np.testing.assert_allclose(streamed(tiny, cut(text, extra, 40)), tiny.encode(text), atol=1e-5)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \t\n",
        "one [SEP] two[MASK]three [SE P] [[SEP]] [sep] [CLS [UNK][PAD]",
        "[MAS",
        "nai\u0308ve cafe\u0301 e\u0301\u0301\u0327 \u0301x",
        "日本語 한국어 x一y ¿qué? don't U.S.A. 3.14",
        "a\u037eb \u226e ẞ İstanbul \u200dx\u200d 👩‍👩‍👧\u302e\u0301 '\u031b\u302e\u0301\u302f a",
        "a \ud83d\ude42 b \ud83d c \ude42 d\ud83d",
        "\x00\x01 a\x00b \ufffd c\ufffdd",
        "x" * 100 + " " + "y" * 101 + "." + "z" * 250 + "[SEP]" + "w" * 120 + " b",
        "e" + "\u0301" * 300 + "f " + "\u200b" * 300 + "g",
        "word \u2028" + " " * 300 + "end",
    ],
)
def test_text_may_be_cut_anywhere(real, text):
    expected = real.encode(text)
    np.testing.assert_allclose(streamed(real, text), expected, atol=1e-5)  # letter by letter
    for seed in range(3):
        np.testing.assert_allclose(streamed(real, cut(text, seed, 9)), expected, atol=1e-5)


def test_tokens_are_those_of_the_whole_text_however_it_is_cut(tiny):
    rng = random.Random(0)
    alphabet = [
        *"ab. ,[]",
        "[SEP]",
        "[MASK]",
        "[SE",
        "badal",
        "\u0301",
        "é",
        "一",
        " ",
        "\n",
        "\x00",
        "\ud83d",
        "\ude42",
    ]
    ids = []
    for seed in range(200):
        text = "".join(rng.choices(alphabet, k=rng.randint(0, 25)))
        stream = Stream(tiny)
        read = []
        stream._read_tokens = read.extend
        for piece in cut(text, seed, 4):
            stream.feed(piece)
        stream.feed_tokens([])
        assert read == tiny.tokenizer(clean(text), add_special_tokens=False)["input_ids"], repr(text)
        ids += read
    assert len(set(ids)) > 8


def test_long_text_in_real_blocks(real):
    text = " ".join(random.Random(1).choices(["river", "committee", "naïve", "running", "3.5", "—"], k=900))
    np.testing.assert_allclose(streamed(real, cut(text, 1, 700)), real.encode(text), atol=1e-5)
    np.testing.assert_allclose(streamed(real, [text]), real.encode(text), atol=1e-5)


def test_the_vector_at_any_moment_is_that_of_what_was_read(tiny, sentences):
    text = sentences(1, 3 * BLOCK)[0]
    stream, read = Stream(tiny), ""
    for piece in cut(text, 5, 150):
        stream.feed(piece)
        read += piece
        np.testing.assert_allclose(stream.vector(), tiny.encode(read), atol=1e-5)
        np.testing.assert_array_equal(stream.vector(), stream.vector())
    assert np.linalg.norm(stream.vector()) == pytest.approx(1, abs=1e-6)
    assert stream.vector().dtype == np.float32


def test_a_stream_goes_on_from_what_was_saved(tiny, sentences, tmp_path):
    text = sentences(1, 2 * BLOCK + 9)[0] + " [SEP] end"
    for at in (0, 3, len(text) // 2, len(text) - 6):
        first = Stream(tiny)
        first.feed(text[:at])
        torch.save(first.state_dict(), tmp_path / "stream.pt")
        first.feed("something else " * BLOCK)  # what was saved is not touched by it
        second = Stream(tiny)
        second.load_state_dict(torch.load(tmp_path / "stream.pt"))
        second.feed(text[at:])
        np.testing.assert_allclose(second.vector(), tiny.encode(text), atol=1e-5)


def test_what_is_held_does_not_grow(tiny, sentences):
    def held(text: str) -> int:
        stream = Stream(tiny)
        for piece in cut(text, 0, 3000):
            stream.feed(piece)
        state = stream.state_dict()
        return state["state"].numel() + len(state["tokens"]) + len(state["pending"])

    assert held(sentences(1, 3000)[0]) < held(sentences(1, 300)[0]) + 2 * BLOCK
    for unending in ("x" * 50_000, "\u0301" * 50_000, " " * 50_000, "[SE" * 20_000, "\ud83d" * 5000):
        stream = Stream(tiny)
        stream.feed("e" + unending)
        assert len(stream.state_dict()["pending"]) < 150
        assert len(stream.state_dict()["tokens"]) < BLOCK


def test_tokens_may_be_fed_too(tiny, sentences):
    one, two = sentences(2, 100)
    stream = Stream(tiny)
    stream.feed(one)
    stream.feed_tokens(tiny.tokenizer(two, add_special_tokens=False)["input_ids"])
    np.testing.assert_allclose(stream.vector(), tiny.encode(f"{one} {two}"), atol=1e-5)
    for wrong in (-1, tiny[0].auto_model.config.vocab_size):
        with pytest.raises(ValueError, match=f"{wrong} is not one"):
            stream.feed_tokens([1, wrong])


def test_base_only_and_bfloat16_stream_too(tiny_base, tiny_weights, tmp_path, sentences):
    text = sentences(1, 3 * BLOCK)[0]
    path = folder.build(tmp_path / "lam", tiny_weights, tiny_base)
    model = lam_model.load(path, device="cpu", base_only=True)
    np.testing.assert_allclose(streamed(model, cut(text, 0, 99)), model.encode(text), atol=1e-5)
    model = lam_model.load(path, device="cpu", dtype="bfloat16")
    whole = model.encode(text, convert_to_tensor=True).float().numpy()
    assert streamed(model, cut(text, 0, 99)) @ whole > 0.999


def test_what_is_not_a_lam_text_or_state_is_refused(tiny, real, base):
    with pytest.raises(TypeError, match="need a LAM, not Transformer"):
        Stream(SentenceTransformer(str(base), device="cpu"))
    stream = Stream(tiny)
    for wrong in (None, b"bytes", ["a"]):
        with pytest.raises(TypeError, match=f"not {type(wrong).__name__}"):
            stream.feed(wrong)
    with pytest.raises(ValueError, match="another model"):
        stream.load_state_dict(Stream(real).state_dict())
    with pytest.raises(ValueError, match="not one of a Stream"):
        stream.load_state_dict({"state": 1})


@pytest.mark.parametrize("mode", ["cls_token", "max_tokens", "mean_sqrt_len_tokens"])
def test_other_pooling_than_the_mean_is_refused(tiny_base, tiny_weights, tmp_path, mode):
    base = shutil.copytree(tiny_base, tmp_path / "base")
    pooling = {"word_embedding_dimension": 48, "pooling_mode_mean_tokens": False, f"pooling_mode_{mode}": True}
    (base / "1_Pooling" / "config.json").write_text(json.dumps(pooling), encoding="utf-8")
    model = lam_model.load(folder.build(tmp_path / "lam", tiny_weights, base), device="cpu")
    with pytest.raises(ValueError, match="need mean pooling"):
        Stream(model)
    with pytest.raises(ValueError, match="need mean pooling"):
        model.encode_passages("ba de")
