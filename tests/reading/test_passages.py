"""Passages: blocks of their own in one pass over the whole text; their offsets are those of the text."""

from __future__ import annotations

from itertools import pairwise

import folders as folder
import numpy as np
import pytest
import torch
from conftest import BLOCK
from sentence_transformers import SentenceTransformer

import lam_model
from lam_model.model import delta_rule
from lam_model.reading.passages import passage_offsets
from lam_model.reading.reader import reader_of
from lam_model.reading.tokenizing import plain_tokenizer


@pytest.fixture(scope="module")
def tiny(tiny_base, tiny_weights, lively_gates, tmp_path_factory):
    model = lam_model.load(folder.build(tmp_path_factory.mktemp("tiny") / "lam", tiny_weights, tiny_base), device="cpu")
    lively_gates(model[0].auto_model)
    return model


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector, axis=-1, keepdims=True)


def read_apart(model, blocks: list[list[int]]) -> list[np.ndarray]:
    """The sums of the hidden states of blocks that are read one after another."""
    lam, state, sums = model[0].auto_model, None, []
    for i, block in enumerate(blocks):
        ids = torch.tensor([block])
        with torch.inference_mode():
            output = lam.forward_block(ids, torch.ones_like(ids), state, first_block=i == 0)
        state = output.state
        sums.append(output.last_hidden_state[0].sum(0).numpy())
    return sums


@pytest.mark.parametrize("backend", ["cpu", "chunked", "naive"])
@pytest.mark.parametrize(("words", "size"), [(1, 16), (16, 16), (17, 16), (BLOCK - 2, 20), (3 * BLOCK + 5, 50)])
def test_a_passage_is_a_block_of_its_own(tiny, sentences, monkeypatch, words, size, backend):
    monkeypatch.setattr(delta_rule, "_fastest", lambda tensor: backend)
    text = sentences(1, words)[0]
    found = tiny.encode_passages(text, size=size)
    counts = [len(text[start:end].split()) for start, end in found.offsets]
    assert sum(counts) == words
    assert len(counts) == -(-words // size)  # no more passages than it takes
    assert max(counts) <= size
    assert max(counts) - min(counts) <= 1
    ids = tiny.tokenizer(text)["input_ids"]  # one a word, between [CLS] and [SEP]
    bounds = [0, *(1 + np.cumsum(counts[:-1])), len(ids)]
    sums = read_apart(tiny, [ids[a:b] for a, b in pairwise(bounds)])
    np.testing.assert_allclose(found.vectors, unit(np.stack(sums)), atol=1e-5)
    np.testing.assert_allclose(found.vector, unit(sum(sums)), atol=1e-5)
    assert found.vectors.dtype == np.float32
    if len(counts) == 1:
        np.testing.assert_allclose(found.vector, tiny.encode(text), atol=1e-5)


def test_a_passage_knows_what_came_before_it_and_nothing_of_what_comes(tiny, sentences):
    first, other, second, third = sentences(4, 20)
    vectors = tiny.encode_passages(f"{first} {second} {third}", size=20).vectors
    changed = tiny.encode_passages(f"{other} {second} {third}", size=20).vectors
    shorter = tiny.encode_passages(f"{first} {second} {other}", size=20).vectors
    assert np.abs(vectors[1:] - changed[1:]).max(axis=1).min() > 1e-3
    np.testing.assert_allclose(shorter[:2], vectors[:2], atol=1e-5)


def test_offsets_are_had_without_reading(tiny, sentences):
    texts = [*sentences(3, 40), "", " ", f"\ud83d\ude00 {sentences(1, 20)[0]}"]
    found = passage_offsets(plain_tokenizer(tiny.tokenizer), texts, size=16)
    for offsets, one in zip(found, tiny.encode_passages(texts, size=16), strict=True):
        np.testing.assert_array_equal(offsets, one.offsets)
        assert offsets.shape == one.offsets.shape


def test_passages_are_sentences_as_many_as_there_is_room_for(tiny, sentences):
    short, longer, long = sentences(1, 4)[0], sentences(1, 9)[0], sentences(1, 30)[0]
    text = f"{short}. {longer}! {longer}?\n{short}\n\n{short} . {long}. {short}."
    found = tiny.encode_passages(text, size=16)
    passages = [text[start:end] for start, end in found.offsets]
    assert passages[:3] == [f"{short}. {longer}!", f"{longer}?\n{short}", f"{short} ."]
    halves = passages[3:]
    assert [len(half.split()) for half in halves[:2]] == [16, 14]
    assert " ".join(halves) == f"{long}. {short}."


def test_texts_give_the_same_in_any_company(tiny, sentences):
    texts = [sentences(1, n, seed=n)[0] for n in (3, 200, 0, 70, 1, 130)]
    together = tiny.encode_passages(texts, size=40, batch_size=4)
    for text, found in zip(texts, together, strict=True):
        alone = tiny.encode_passages(text, size=40)
        np.testing.assert_allclose(found.vector, alone.vector, atol=1e-5)
        np.testing.assert_allclose(found.vectors, alone.vectors, atol=1e-5)
        np.testing.assert_array_equal(found.offsets, alone.offsets)
    assert tiny.encode_passages([]) == []


def test_offsets_are_those_of_the_text_as_given(tiny):
    text = "  b\u00e1dal \ud83d\ude42 lem\ud800 nis, \U0001f642tor \ud83d\ude42kutor.\n[SEP] le\u0301m "
    found = tiny.encode_passages(text, size=1)
    words = ["b\u00e1dal", "\ud83d\ude42", "lem", "nis", ",", "\U0001f642tor", "\ud83d\ude42kutor", ".", "[SEP]"]
    starts = [start for start, _ in found.offsets.tolist()]
    assert {text.index(word) for word in words} <= set(starts)
    assert [text[start:end] for start, end in found.offsets if text[start] in ".["] == [".", "[SEP]"]
    assert found.offsets[-1, 1] <= len(text.rstrip())
    assert starts == sorted(starts)


def test_passages_end_between_words_where_there_is_a_way(tiny):
    # Words of ten tokens, of letters that the tiny vocabulary has.
    text = " ".join(["zqzqzqzqzq"] * 7)
    found = tiny.encode_passages(text, size=25)
    assert [text[start:end].count("zqzqzqzqzq") * 11 - 1 for start, end in found.offsets] == [
        end - start for start, end in found.offsets
    ]
    pieces = tiny.encode_passages(text, size=4)  # there is none
    assert all(end - start <= 4 for start, end in pieces.offsets)


@pytest.mark.parametrize("text", ["", " \n", "\x00"])
def test_a_text_without_a_word_has_no_passage(tiny, text):
    found = tiny.encode_passages(text)
    np.testing.assert_allclose(found.vector, tiny.encode(text), atol=1e-5)
    assert found.vectors.shape == (0, len(found.vector))
    assert found.offsets.shape == (0, 2)


def test_a_limit_is_kept_and_counted(tiny_base, tiny_weights, tmp_path, sentences):
    model = lam_model.load(folder.build(tmp_path / "lam", tiny_weights, tiny_base), device="cpu")
    text = sentences(1, 90)[0]
    model.max_seq_length = 52
    with pytest.warns(UserWarning, match="1 of 1 texts"):
        found = model.encode_passages(text, size=25)
    assert len(text[: found.offsets[-1, 1]].split()) == 50
    assert model.truncated_texts == 1


def test_memory_of_activations_is_that_of_a_block(tiny, sentences, monkeypatch):
    lengths = []
    lam = tiny[0].auto_model
    forward_block = type(lam).forward_block

    def watched(self, input_ids, *args, **kwargs):
        lengths.append(input_ids.shape[1])
        return forward_block(self, input_ids, *args, **kwargs)

    monkeypatch.setattr(type(lam), "forward_block", watched)
    tiny.encode_passages(sentences(1, 10 * BLOCK)[0], size=BLOCK // 4)
    assert max(lengths) <= BLOCK
    assert len(lengths) == 14  # three passages each, for there are pads between them


def test_what_cannot_be_embedded_is_refused(tiny, base):
    with pytest.raises(TypeError, match="not NoneType"):
        tiny.encode_passages(None)
    with pytest.raises(TypeError, match="index 1 is int"):
        tiny.encode_passages(["a", 1])
    for size in (0, BLOCK - 1):
        with pytest.raises(ValueError, match=f"size is {size}: a passage has from 1 to {BLOCK - 2} tokens"):
            tiny.encode_passages("a", size=size)
    with pytest.raises(TypeError, match="need a LAM, not Transformer"):
        reader_of(SentenceTransformer(str(base), device="cpu"))


def test_bfloat16_is_close(tiny_base, tiny_weights, tmp_path, sentences):
    path, text = folder.build(tmp_path / "lam", tiny_weights, tiny_base), sentences(1, 150)[0]
    exact = lam_model.load(path, device="cpu").encode_passages(text, size=50)
    rough = lam_model.load(path, device="cpu", dtype=torch.bfloat16).encode_passages(text, size=50)
    assert (exact.vectors * rough.vectors).sum(axis=1).min() > 0.99
