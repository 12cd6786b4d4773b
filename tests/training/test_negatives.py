"""Hard negatives: found by vectors and by words, never an answer, the same in every run."""

from __future__ import annotations

import numpy as np
import pytest

from lam_model.training import negatives
from lam_model.training.negatives import Vectors, best_by_words, mine, nearest
from lam_model.training.tasks import Retrieval

WORDS = ["tea", "coffee", "stone", "river", "cloud", "paper", "glass", "bread"]
QUERIES = {f"q{i}": word for i, word in enumerate(WORDS)}
# Of each word five documents, of which the first two answer the query.
CORPUS = {f"d{i}{j}": f"{word} number {j}" for i, word in enumerate(WORDS) for j in range(5)}
RELEVANT = {f"q{i}": [f"d{i}0", f"d{i}1"] for i in range(len(WORDS))}
TASK = Retrieval("words", QUERIES, CORPUS, RELEVANT, {})


def by_first_word(texts: list[str]) -> np.ndarray:
    """Texts of one word are near to each other, those of the next word less."""
    angles = np.array([WORDS.index(t.split()[0]) + (0.1 * int(t.split()[-1]) if " " in t else 0) for t in texts]) / 10
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


@pytest.fixture
def vectors(tmp_path):
    return Vectors(by_first_word, "key", tmp_path / "vectors")


def test_vectors_are_those_of_the_texts_and_embedded_once(tmp_path):
    calls = []

    def encode(texts):
        calls.append(texts)
        return np.array([[len(text)] for text in texts])

    texts = ["x" * (n % 50) for n in range(100)]
    vectors = Vectors(encode, "key", tmp_path)
    first = vectors(texts, "texts")
    assert first.dtype == np.float32
    assert first[:, 0].tolist() == [len(text) for text in texts]
    assert sum(map(len, calls)) == 100
    assert np.array_equal(vectors(texts, "texts"), first)
    assert sum(map(len, calls)) == 100
    Vectors(encode, "another", tmp_path)(texts, "texts")
    assert sum(map(len, calls)) == 200


def test_nearest_are_sorted_by_cosine(vectors):
    assert nearest(TASK, vectors, 3)["q3"] == ["d30", "d31", "d32"]


def test_best_by_words_share_a_word():
    assert set(best_by_words(TASK, 5)["q3"]) == {f"d3{j}" for j in range(5)}


def test_mined_negatives_are_near_and_no_answers(vectors, monkeypatch):
    monkeypatch.setattr(negatives, "NEAREST", 1)
    monkeypatch.setattr(negatives, "FARTHEST", 5)
    mined = mine(TASK, vectors, 3)
    assert mined.keys() == QUERIES.keys()
    for i in range(len(WORDS)):
        found = [negative.document for negative in mined[f"q{i}"]]
        assert sorted(found) == [f"d{i}2", f"d{i}3", f"d{i}4"]
        assert {negative.miner for negative in mined[f"q{i}"]} <= {"model", "BM25"}


def test_a_text_equal_to_an_answer_is_no_negative(vectors, monkeypatch):
    monkeypatch.setattr(negatives, "NEAREST", 1)
    corpus = CORPUS | {"twin": CORPUS["d00"]}
    mined = mine(Retrieval("words", QUERIES, corpus, RELEVANT, {}), vectors, 8)
    assert "twin" not in {negative.document for negative in mined["q0"]}


def test_the_nearest_are_skipped(vectors, monkeypatch):
    monkeypatch.setattr(negatives, "FARTHEST", 5)
    # Ranks 1 and 2 are the answers by the model; BM25 finds all five alike.
    assert all(negative.rank >= negatives.NEAREST for negative in mine(TASK, vectors, 1)["q3"])


def test_data_name_their_negatives_first(vectors):
    task = Retrieval("words", QUERIES, CORPUS, RELEVANT, {"q0": ["d74"]})
    mined = mine(task, vectors, 3)
    assert mined["q0"][0] == ("d74", "data", 0)
    assert len(mined["q0"]) == 3


def test_a_judge_takes_out_what_is_closer_than_the_answer(vectors, monkeypatch, tmp_path):
    monkeypatch.setattr(negatives, "NEAREST", 1)

    def backwards(texts):  # the higher the number, the closer
        numbers = np.array([0.1 * (4 - int(t.split()[-1])) if " " in t else 0 for t in texts])
        return np.stack([np.cos(numbers), np.sin(numbers)], axis=1)

    judge = Vectors(backwards, "judge", tmp_path / "judge")
    # The answers have numbers 0 and 1: all that have higher ones are closer.
    for number in range(8):
        assert {CORPUS[n.document][-1] for n in mine(TASK, vectors, 2, judge, seed=number)["q0"]} <= {"0", "1"}
    drawn = [CORPUS[n.document][-1] for n in mine(TASK, vectors, 8, judge, margin=1.0)["q0"]]
    assert set(drawn) - {"0", "1"}


def test_a_query_without_near_documents_gets_others_by_chance(vectors, monkeypatch):
    monkeypatch.setattr(negatives, "FARTHEST", 2)
    mined = mine(TASK, vectors, 4)
    for query, found in mined.items():
        assert len({negative.document for negative in found}) == 4
        assert not {negative.document for negative in found} & set(RELEVANT[query])


def test_the_draw_depends_on_the_seed_alone(vectors):
    assert mine(TASK, vectors, 3, seed=1) == mine(TASK, vectors, 3, seed=1) != mine(TASK, vectors, 3, seed=2)


def test_too_small_a_corpus_is_refused(vectors):
    with pytest.raises(ValueError, match="words has 40 documents: too few for 21 negatives"):
        mine(TASK, vectors, 21)
