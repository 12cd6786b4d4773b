"""Passages: texts of their own that start from the document's beginning and the passage before; their offsets."""

from __future__ import annotations

import folders as folder
import numpy as np
import pytest
import torch
from conftest import BLOCK
from sentence_transformers import SentenceTransformer

import lam_model
from lam_model.model import delta_rule
from lam_model.reading.cutting import passage_offsets, window
from lam_model.reading.passages import BEGINNING_TOKENS, OF_BEFORE, OF_BEGINNING
from lam_model.reading.reader import reader_of
from lam_model.reading.tokenizing import plain_tokenizer


@pytest.fixture(scope="module")
def tiny(tiny_base, tiny_weights, lively_gates, tmp_path_factory):
    model = lam_model.load(folder.build(tmp_path_factory.mktemp("tiny") / "lam", tiny_weights, tiny_base), device="cpu")
    lively_gates(model[0].auto_model)
    return model


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector, axis=-1, keepdims=True)


def in_document(beginning: np.ndarray | None, sums: np.ndarray) -> np.ndarray:
    """The vectors of passages, from the sums of the beginning and theirs."""
    own = unit(sums)
    before = np.concatenate([np.zeros_like(own[:1]), own[:-1]])
    about = 0 if beginning is None else unit(beginning)
    return unit(own + OF_BEFORE * before + OF_BEGINNING * about)


def read_apart(model, parts: list[list[int]]) -> np.ndarray:
    """The sums of the hidden states of texts that are read one after another, each from what those before it left."""
    lam, state, sums = model[0].auto_model, None, []
    for part in parts:
        ids = torch.tensor([part])
        with torch.inference_mode():
            output = lam.forward_block(ids, torch.ones_like(ids), state)
        state = output.state
        sums.append(output.last_hidden_state[0].sum(0).numpy())
    return np.stack(sums)


@pytest.mark.parametrize("title", [None, "bador lem", "bador lem " * 50])
@pytest.mark.parametrize("backend", ["cpu", "chunked", "naive"])
@pytest.mark.parametrize(("words", "size"), [(1, 16), (16, 16), (17, 16), (BLOCK - 2, 20), (3 * BLOCK + 5, 50)])
def test_a_passage_is_a_text_that_starts_from_the_beginning_and_the_passage_before(
    tiny, sentences, monkeypatch, words, size, backend, title
):
    monkeypatch.setattr(delta_rule, "_fastest", lambda tensor: backend)
    text = sentences(1, words)[0]
    found = tiny.encode_passages(text, size=size, title=title)
    passages = [text[start:end] for start, end in found.offsets]
    counts = [len(passage.split()) for passage in passages]
    assert sum(counts) == words
    assert len(counts) == -(-words // size)  # no more passages than it takes
    assert max(counts) <= size
    assert max(counts) - min(counts) <= 1
    most = min(BEGINNING_TOKENS, BLOCK - 2)
    cls, *ids, sep = tiny.tokenizer(text)["input_ids"]
    told = tiny.tokenizer(title or "")["input_ids"][1:-1][: most // 2]
    first = [*told, *ids[: most - 2 * len(told)], *told]
    beginning = [[cls, *first, sep]] * (len(counts) > 1 or title is not None)
    read = read_apart(tiny, [*beginning, *tiny.tokenizer(passages)["input_ids"]])
    sums = read[len(beginning) :]
    np.testing.assert_allclose(found.vectors, in_document(read[0] if beginning else None, sums), atol=1e-5)
    np.testing.assert_allclose(found.vector, unit(sums.sum(0)), atol=1e-5)
    assert found.vectors.dtype == np.float32
    if not beginning:
        np.testing.assert_allclose(found.vector, tiny.encode(text), atol=1e-5)


def test_a_passage_knows_beginning_and_what_came_before_it_and_nothing_of_what_comes(tiny, sentences):
    texts = sentences(8, 20)
    vectors = tiny.encode_passages(" ".join(texts), size=20).vectors
    for changed in range(8):
        others = [*texts[:changed], sentences(1, 20, seed=9)[0], *texts[changed + 1 :]]
        found = np.abs(tiny.encode_passages(" ".join(others), size=20).vectors - vectors).max(axis=1)
        if changed * 20 > BLOCK:  # after the beginning
            assert found[:changed].max() < 1e-5
        assert found[changed : changed + 2].min() > 1e-3
    titled = tiny.encode_passages(" ".join(texts), size=20, title=sentences(1, 5, seed=3)[0])
    assert np.abs(titled.vectors - vectors).max(axis=1).min() > 1e-4
    np.testing.assert_array_equal(titled.offsets, tiny.encode_passages(" ".join(texts), size=20).offsets)


def test_passages_that_were_cut_before_are_those_that_are_cut_here(tiny, sentences):
    text = " ".join(sentences(7, 13))
    wanted = tiny.encode_passages(text, size=16, title="lem")
    spans = wanted.offsets.tolist()
    chunks = [text[start:end] for start, end in spans]
    for found in (
        tiny.encode_passages([chunks], title=["lem"])[0],
        tiny.encode_passages(text, spans=spans, title="lem"),
        tiny.encode_passages(["a", tuple(chunks)], title=[None, "lem"], batch_size=1)[1],
    ):
        np.testing.assert_allclose(found.vectors, wanted.vectors, atol=1e-5)
        np.testing.assert_allclose(found.vector, wanted.vector, atol=1e-5)
    assert tiny.encode_passages(text, spans=spans).offsets.tolist() == spans
    found = tiny.encode_passages([chunks])[0]
    assert ["".join(chunks)[start:end] for start, end in found.offsets] == chunks


def test_without_context_a_passage_is_what_encode_gives(tiny, sentences):
    chunks = [*sentences(5, 9), "", sentences(1, 3 * BLOCK + 7)[0], sentences(1, 2)[0]]
    (found,) = tiny.encode_passages([chunks], context=False, title=["lem"])
    np.testing.assert_allclose(found.vectors, tiny.encode(chunks), atol=1e-5)
    text = " ".join(chunks[:5])
    found = tiny.encode_passages(text, size=16, context=False)
    np.testing.assert_allclose(found.vectors, tiny.encode([text[i:j] for i, j in found.offsets]), atol=1e-5)


def test_a_passage_longer_than_a_block_and_one_without_a_word_are_read(tiny, sentences):
    chunks = [sentences(1, 2 * BLOCK)[0], "", sentences(1, 5)[0]]
    found = tiny.encode_passages([chunks])[0]
    assert found.vectors.shape[0] == 3
    assert np.isfinite(found.vectors).all()
    ids, most = tiny.tokenizer(chunks, add_special_tokens=False)["input_ids"], BLOCK - 2
    cls, sep = tiny.tokenizer("")["input_ids"]
    pieces = [ids[0][:most], ids[0][:most], ids[0][most : 2 * most], ids[0][2 * most :], [], ids[2]]
    sums = read_apart(tiny, [[cls, *piece, sep] for piece in pieces])
    wanted = in_document(sums[0], np.stack([sums[1:4].sum(0), sums[4], sums[5]]))
    np.testing.assert_allclose(found.vectors, wanted, atol=1e-5)


def test_a_window_is_whole_sentences_around_a_passage():
    sentences = [f"This is sentence {i}." for i in range(9)]
    text = " ".join(sentences)
    start = text.index(sentences[4])
    for count in range(1, 10):
        most = len(" ".join(sentences[:count])) + 1
        begin, end = window(text, start, start + len(sentences[4]), most)
        found = text[begin:end]
        assert len(found) <= most
        assert sentences[4] in found
        assert found.count(".") == count
        assert found.endswith(".")
        assert found.startswith("This")
    assert window(text, start, start + len(sentences[4]), 5) == (start, start + len(sentences[4]))
    assert window("no end", 0, 6, 100) == (0, 6)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"texts": [["a", 3]]}, TypeError, "document at index 0: .* index 1 is int"),
        ({"texts": ["a", {"b": 1}]}, TypeError, "document at index 1 is dict"),
        ({"texts": ["a"], "title": "b"}, ValueError, "one title for 1 documents"),
        ({"texts": ["a"], "title": ["b", "c"]}, ValueError, "2 titles for 1 documents"),
        ({"texts": "a", "title": 3}, TypeError, "title at index 0 is int"),
        ({"texts": "abc", "spans": [(0, 2), (1, 3)]}, ValueError, "index 0: span 1, .* overlaps"),
        ({"texts": "abc", "spans": [(2, 3), (0, 1)]}, ValueError, "span 1, .* in order"),
        ({"texts": "abc", "spans": [(0, 4)]}, ValueError, "span 0, .* leaves the text of 3 characters"),
        ({"texts": "abc", "spans": [(-1, 2)]}, ValueError, "span 0"),
        ({"texts": "abc", "spans": [(0.5, 2)]}, TypeError, "span 0 is .*: give a pair of integers"),
        ({"texts": "abc", "spans": [3]}, TypeError, "span 0 is 3"),
        ({"texts": ["abc"], "spans": []}, ValueError, "0 lists of spans for 1 documents"),
        ({"texts": [["abc"]], "spans": [[(0, 1)]]}, ValueError, "a list of passages and has spans too"),
    ],
)
def test_documents_that_do_not_fit_are_refused(tiny, arguments, error, message):
    with pytest.raises(error, match=message):
        tiny.encode_passages(**arguments)


def test_a_title_without_a_text_has_the_titles_state_and_no_passage(tiny):
    found = tiny.encode_passages("", title="lem bador")
    assert found.vectors.shape[0] == 0
    assert np.isfinite(found.vector).all()
    assert tiny.encode_passages([[]])[0].vectors.shape[0] == 0
    assert tiny.encode_passages("abc", spans=[]).vectors.shape[0] == 0


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
    assert len(lengths) == 11 + 3 + 1


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
