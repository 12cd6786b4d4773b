"""What is watched while a model is tuned."""

from __future__ import annotations

from unittest.mock import Mock

import numpy as np
import pytest

from lam_model.training import watch
from lam_model.training.negatives import Vectors
from lam_model.training.tasks import Retrieval, Similarity, Texts
from lam_model.training.watch import Watch, few, split

NAMES = [str(i) for i in range(40)]
RETRIEVAL = Retrieval("asked", {n: f"q{n}" for n in NAMES}, {n: f"d{n}" for n in NAMES}, {n: [n] for n in NAMES}, {})
PAIRS = Similarity("alike", [(f"q{n}", f"d{n}") for n in NAMES], np.linspace(0, 1, 40).tolist())
TEXTS = Texts("plain", [f"d{n}" for n in NAMES])


class Model:
    """Gives each text the vector of an angle; `query_error` turns the queries away from their documents."""

    similarity_fn_name = "cosine"
    model_card_data = Mock()

    def __init__(self, query_error: float = 0.0, shift: float = 0.0):
        self.query_error, self.shift = query_error, shift

    def encode(self, texts, convert_to_tensor=False, **kwargs):
        import torch

        angles = np.array([0.05 * int(t[1:]) + self.shift + self.query_error * (t[0] == "q") for t in texts])
        vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
        return torch.from_numpy(vectors) if convert_to_tensor else vectors

    encode_query = encode_document = encode

    def similarity(self, a, b):
        return a @ b.T


def make(tmp_path, judged=(RETRIEVAL,), guarded=(PAIRS,), max_loss=1.0):
    vectors = Vectors(Model().encode, "model", tmp_path)
    return Watch(list(judged), list(guarded), vectors, vectors, max_loss)


def test_split_is_disjoint_and_the_same_in_every_run():
    for task in (RETRIEVAL, PAIRS, TEXTS):
        train, held_out = split(task, seed=3)
        assert (len(train), len(held_out)) == (36, 4)
        assert split(task, seed=3) == (train, held_out) != split(task, seed=4)
    train, held_out = split(RETRIEVAL)
    assert not train.queries.keys() & held_out.queries.keys()
    assert train.corpus == held_out.corpus == RETRIEVAL.corpus
    train, held_out = split(PAIRS)
    assert set(train.pairs) | set(held_out.pairs) == set(PAIRS.pairs)


def test_split_holds_out_no_more_than_it_needs(monkeypatch):
    monkeypatch.setattr(watch, "QUERIES", 2)
    monkeypatch.setattr(watch, "ROWS", 3)
    assert len(split(RETRIEVAL).held_out) == 2
    assert len(split(PAIRS).held_out) == 3


def test_few_are_as_many_as_are_watched(monkeypatch):
    monkeypatch.setattr(watch, "QUERIES", 5)
    monkeypatch.setattr(watch, "ROWS", 7)
    assert len(few(RETRIEVAL)) == 5
    assert len(few(PAIRS)) == 7
    assert few(RETRIEVAL).corpus == RETRIEVAL.corpus


def test_scores_of_a_perfect_model(tmp_path):
    scores = make(tmp_path)(Model())
    assert scores["asked"] == scores["score"] == 100
    assert scores["cosine"] == pytest.approx(100, abs=1e-3)
    assert scores.keys() == {"asked", "alike", "cosine", "score"}


def test_ndcg_and_cosine_are_those_of_their_definitions(tmp_path):
    watched = make(tmp_path, guarded=[], max_loss=100)
    # Each query is nearest to the next document, its own comes second; the last has no next.
    scores = watched(Model(query_error=0.04))
    assert scores["asked"] == pytest.approx(100 * (39 / np.log2(3) + 1) / 40, abs=1e-3)
    assert watched(Model(shift=0.5))["cosine"] == pytest.approx(100 * np.cos(0.5), abs=1e-3)


def test_spearman_is_that_of_the_cosines(tmp_path):
    class Worse(Model):
        def encode(self, texts, **kwargs):
            numbers = np.array([int(t[1:]) for t in texts])
            angles = np.where([t[0] == "q" for t in texts], 0, 1 - 0.02 * numbers)
            return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    assert make(tmp_path, judged=[PAIRS], guarded=[])(Worse())["alike"] == pytest.approx(100, abs=1e-3)


def test_a_task_that_falls_too_far_takes_the_score(tmp_path):
    watched = make(tmp_path, max_loss=20)
    first = watched(Model())
    assert watched.start == pytest.approx({"asked": first["asked"], "alike": first["alike"]}, abs=1e-3)
    assert not watched.fallen
    assert watched(Model(query_error=0.04))["score"] == 0
    assert "asked fell from 100.00 to 64" in watched.fallen
    assert "--max-loss 20" in watched.fallen


def test_a_run_that_goes_on_knows_its_start(tmp_path):
    watched = make(tmp_path, max_loss=20)
    watched.start = {"asked": 30.0, "alike": -100.0}
    assert watched(Model(query_error=0.04))["score"] > 60


def test_only_judged_tasks_decide(tmp_path):
    watched = make(tmp_path, judged=[PAIRS], guarded=[RETRIEVAL])
    scores = watched(Model())
    assert scores["score"] == scores["alike"] != scores["asked"]


def test_two_tasks_of_one_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match="two tasks are called asked"):
        make(tmp_path, guarded=[RETRIEVAL])


def test_texts_are_watched_by_their_cosine_to_the_base(tmp_path):
    watched = make(tmp_path, judged=[RETRIEVAL], guarded=[TEXTS])
    assert watched(Model())["plain"] == pytest.approx(100, abs=1e-3)
    assert watched(Model(shift=0.1))["plain"] == pytest.approx(100 * np.cos(0.1), abs=1e-3)
    assert not watched.fallen
    watched(Model(shift=0.3))
    assert watched.fallen.startswith("plain fell from 100.00")
