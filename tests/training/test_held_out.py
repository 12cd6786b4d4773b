"""How close a model is to the teacher, on texts that are never trained on."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from conftest import BLOCK
from datasets import Dataset

from lam_model.training import data
from lam_model.training.held_out import HeldOut
from lam_model.training.teacher import Teacher


@pytest.fixture
def held_out(tiny_base, sentences, monkeypatch) -> HeldOut:
    monkeypatch.setattr(data, "HELD_OUT", 4)
    texts = sentences(80, 10) + sentences(16, 250)
    rows = Dataset.from_dict({"text": texts, "column": ["text"] * len(texts)})
    return HeldOut(Teacher(tiny_base, BLOCK), rows, frozenset())


def read_as_the_teacher_does(held_out: HeldOut, scale: float = 1.0):
    """A model that is the teacher itself, on texts of one block."""

    def model(input_ids, attention_mask):
        hidden = torch.zeros(*input_ids.shape, 48)
        for start in range(0, input_ids.shape[1], BLOCK):
            block = slice(start, start + BLOCK)
            output = held_out.teacher.bert(input_ids=input_ids[:, block], attention_mask=attention_mask[:, block])
            hidden[:, block] = output.last_hidden_state
        return SimpleNamespace(last_hidden_state=scale * hidden)

    return model


@pytest.mark.parametrize(("scale", "wanted"), [(1.0, 1.0), (7.0, 1.0), (-1.0, -1.0)])
def test_cosine_to_itself_is_one_whatever_the_length_of_the_vector(held_out, scale, wanted):
    scores = held_out.score(read_as_the_teacher_does(held_out, scale))
    assert scores.keys() == {"cosine", "worst_5_percent", "long_cosine"}
    for score in scores.values():
        assert score == pytest.approx(wanted, abs=0.03)  # on long texts its blocks are not quite the teacher's pieces
    assert scores["cosine"] == pytest.approx(wanted, abs=5e-3)


def test_worst_twentieth_is_below_the_mean(held_out, tiny_lam):
    scores = held_out.score(tiny_lam)
    assert scores["worst_5_percent"] < scores["cosine"] < 0.999
    assert held_out.score(tiny_lam) == scores


def test_without_long_texts_there_is_no_long_cosine(tiny_base, sentences, monkeypatch, tiny_lam):
    monkeypatch.setattr(data, "HELD_OUT", 4)
    texts = sentences(40, 10)
    rows = Dataset.from_dict({"text": texts, "column": ["text"] * len(texts)})
    scores = HeldOut(Teacher(tiny_base, BLOCK), rows, frozenset()).score(tiny_lam)
    assert scores.keys() == {"cosine", "worst_5_percent"}
