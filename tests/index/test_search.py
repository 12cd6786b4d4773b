import gzip
import json
import os

import numpy as np
import pytest

from lam_model import Passages
from lam_model.index import search as module
from lam_model.index.search import Hit, Passage, embed_corpus, read_corpus, search

WORDS = ["sea", "fish", "rock", "star"]


class Words:
    """Stands in for a model: the vector of a text is the direction of its words' counts."""

    def __init__(self):
        self.encoded = 0

    def encode(self, texts, batch_size=32, show_progress_bar=None):
        vectors = np.array([[t.split().count(w) for w in WORDS] for t in texts], np.float32) + 1e-3
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def encode_passages(self, texts, size, batch_size=32):
        """A passage is a line."""
        self.encoded += len(texts)
        found = []
        for text in texts:
            lines = text.splitlines(keepends=True)
            bounds = np.cumsum([0, *map(len, lines)])
            offsets = np.stack([bounds[:-1], bounds[1:]], axis=1)
            found.append(Passages(self.encode([text])[0], self.encode(lines or [""])[: len(lines)], offsets))
        return found


@pytest.fixture
def corpus(tmp_path):
    documents = [
        {"_id": "a", "title": "sea", "text": "fish"},
        {"id": 7, "text": "rock"},
        {"text": "star star sea"},
        {"title": "rock", "text": ""},
    ]
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join(map(json.dumps, documents)) + "\n")
    return path


def test_the_best_come_first_and_of_equals_the_earlier(corpus):
    model = Words()
    documents, index = embed_corpus(model, corpus)
    first, second = search(model, ["sea fish", "rock"], documents, index, top_k=2)
    assert [hit.id for hit in first] == ["a", "2"]
    assert first[0] == Hit(first[0].score, "a", "sea", "fish")
    assert first[0].score == pytest.approx(1)
    assert [hit.id for hit in second] == ["7", "3"]  # a missing id is the document's number


def test_top_k_may_be_more_than_there_are_but_not_less_than_one(corpus):
    model = Words()
    documents, index = embed_corpus(model, corpus)
    assert len(search(model, ["sea"], documents, index, top_k=10)[0]) == 4
    with pytest.raises(ValueError, match="top_k is 0"):
        search(model, ["sea"], documents, index, top_k=0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"corpus\.jsonl holds no documents"),
        ("\n \n", r"corpus\.jsonl holds no documents"),
        ('{"text": "x"}\n\n{"text": "y"\n', r"corpus\.jsonl, line 3 is not JSON"),
        ('{"title": "x"}\n', r"corpus\.jsonl, line 1 has no `text`"),
        ('{"text": "x", "_id": [1]}\n', r"corpus\.jsonl, line 1 has the `_id` \[1\]"),
        ('{"text": "x", "_id": "1"}\n{"text": "y", "id": 1}\n', r"corpus\.jsonl, line 2 has the id '1'"),
        ('{"text": "x", "_id": "1"}\n{"text": "y"}\n', r"corpus\.jsonl, line 2 has no id, and its number, 1,"),
    ],
)
def test_a_bad_corpus_is_named(corpus, content, message):
    corpus.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_corpus(corpus)


def test_only_jsonl_that_is_there_is_searched(tmp_path):
    with pytest.raises(ValueError, match=r"cannot search .*a\.txt"):
        read_corpus(tmp_path / "a.txt")
    with pytest.raises(FileNotFoundError, match=r"a\.jsonl does not exist"):
        read_corpus(tmp_path / "a.jsonl")


@pytest.mark.parametrize("name", ["corpus.JSONL", "corpus.ndjson", "corpus.jsonl.gz"])
def test_jsonl_by_another_name_is_searched(corpus, name):
    expected = read_corpus(corpus)
    content = corpus.read_bytes()
    path = corpus.with_name(name)
    path.write_bytes(gzip.compress(content, mtime=0) if name.endswith(".gz") else content)
    assert embed_corpus(Words(), path, "model")[0] == expected
    assert path.with_name(f"{name}.lam.npz").exists()


def test_a_folder_is_no_corpus(tmp_path):
    folder = tmp_path / "a.jsonl"
    folder.mkdir()
    with pytest.raises(ValueError, match=r"cannot search .*a\.jsonl"):
        read_corpus(folder)


def test_vectors_are_kept_for_the_same_corpus_and_model(corpus):
    _, first = embed_corpus(Words(), corpus, "model 1")
    again = Words()
    _, second = embed_corpus(again, corpus, "model 1")
    assert again.encoded == 0
    same(first, second)
    assert sorted(os.listdir(corpus.parent)) == ["corpus.jsonl", "corpus.jsonl.lam.npz"]


def test_stale_vectors_are_never_used(corpus):
    embed_corpus(Words(), corpus, "model 1")
    other_model = Words()
    embed_corpus(other_model, corpus, "model 2")
    assert other_model.encoded == 4
    corpus.write_text(corpus.read_text().replace("fish", "rock"))  # as many documents, of the same length
    changed = Words()
    _, index = embed_corpus(changed, corpus, "model 2")
    assert changed.encoded == 4
    np.testing.assert_array_equal(index.vectors[0], Words().encode(["sea rock"])[0])


def test_without_a_key_nothing_is_kept(corpus):
    embed_corpus(Words(), corpus)
    assert os.listdir(corpus.parent) == ["corpus.jsonl"]


def same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def flipped(data):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]


@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: b"no zip", lambda data: data[: len(data) // 2], flipped]
)
def test_damaged_vectors_are_made_again(corpus, damage):
    _, expected = embed_corpus(Words(), corpus, "key")
    beside = corpus.with_name("corpus.jsonl.lam.npz")
    whole = beside.read_bytes()
    beside.write_bytes(damage(whole))
    model = Words()
    _, index = embed_corpus(model, corpus, "key")
    assert model.encoded == 4
    same(index, expected)
    assert beside.read_bytes() == whole


@pytest.mark.parametrize("wrong", [np.zeros((3, 4)), np.full((4, 4), np.nan), np.array({"pickle": 1})])
@pytest.mark.parametrize("name", ["vectors", "offsets", "counts"])
def test_arrays_of_another_shape_or_kind_are_made_again(corpus, name, wrong):
    embed_corpus(Words(), corpus, "key")
    beside = corpus.with_name("corpus.jsonl.lam.npz")
    with np.load(beside) as file:
        arrays = dict(file)
    np.savez(beside, **(arrays | {name: wrong}))
    model = Words()
    embed_corpus(model, corpus, "key")
    assert model.encoded == 4


def test_a_cache_without_passages_is_made_again(corpus):
    embed_corpus(Words(), corpus, "key")
    beside = corpus.with_name("corpus.jsonl.lam.npz")
    with np.load(beside) as file:
        arrays = {name: file[name] for name in ("key", "vectors")}
    np.savez(beside, **arrays)
    model = Words()
    embed_corpus(model, corpus, "key")
    assert model.encoded == 4


def test_a_long_document_counts_as_its_best_passage(corpus):
    long = {"_id": "long", "title": "sea", "text": "sea rock\nfish fish\nstar star star"}
    rows = corpus.read_text().splitlines()
    corpus.write_text("\n".join([*rows[:2], json.dumps(long), *rows[2:]]))
    for _ in range(2):  # made, then read
        documents, index = embed_corpus(Words(), corpus, "key")
        assert index.counts.tolist() == [1, 1, 3, 1, 1]
        fish, star, rock = search(Words(), ["fish", "star", "rock"], documents, index, top_k=5)
        assert fish[0].score == pytest.approx(1, abs=1e-3)
        assert fish[0][1:5] == ("long", "sea", long["text"], Passage(13, 23, "fish fish\n", documents[2].whole))
        assert documents[2].whole[13:23] == "fish fish\n"
        assert star[0].passage.text == "star star star"
        assert [hit.id for hit in rock] == ["7", "4", "long", "a", "3"]
        assert [hit.passage for hit in rock if hit.id != "long"] == [None] * 4


def test_a_folder_that_cannot_be_written_is_only_a_warning(corpus, monkeypatch, caplog):
    def full(file, **arrays):
        file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(module.np, "savez", full)
    documents, index = embed_corpus(Words(), corpus, "key")
    assert len(documents) == len(index.vectors) == 4
    assert "No space left" in caplog.text
    assert os.listdir(corpus.parent) == ["corpus.jsonl"]
