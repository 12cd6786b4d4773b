"""Discriminants: what a document's passages share, and others do not."""

from __future__ import annotations

import numpy as np
import pytest

import lam_model
from lam_model import Passages, document_vectors

SIZE = 24


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def document(vectors: np.ndarray) -> Passages:
    vectors = unit(vectors).astype(np.float32)
    return Passages(unit(vectors.sum(0)), vectors, np.zeros((len(vectors), 2), np.int64))


@pytest.fixture
def documents() -> list[Passages]:
    """Passages with much that all share, little that their document's share, and much of their own."""
    rng = np.random.default_rng(0)
    common, topics = 3 * rng.normal(size=SIZE), rng.normal(size=(8, SIZE))
    return [document(common + topic + rng.normal(size=(40, SIZE))) for topic in topics]


def test_it_is_the_least_squares_solution(documents):
    """Of its novelty on each of the document's passages, 0 on all passages with eight times the weight, and a ridge."""
    everything = np.concatenate([one.vectors for one in documents]).astype(np.float64)
    own = documents[3].vectors.astype(np.float64)
    nearest = [max(p @ q for j, q in enumerate(own) if i != j) for i, p in enumerate(own)]
    rows = [own, np.sqrt(8 * len(own) / len(everything)) * everything, np.sqrt(0.001 * len(own)) * np.eye(SIZE)]
    targets = np.concatenate([np.exp(-3 * np.array(nearest)), np.zeros(len(everything) + SIZE)])
    expected = np.linalg.lstsq(np.concatenate(rows), targets, rcond=None)[0]
    found = document_vectors(documents)
    np.testing.assert_allclose(found[3], unit(expected), atol=1e-5)
    assert found.dtype == np.float32
    assert found.shape == (8, SIZE)


@pytest.mark.parametrize("rows", [7, 39, 40])
def test_a_documents_length_does_not_matter(documents, monkeypatch, rows):
    expected = document_vectors(documents)
    monkeypatch.setattr("lam_model.reading.discriminant._ROWS", rows)
    np.testing.assert_allclose(document_vectors(documents), expected, atol=1e-6)


def test_a_passage_unlike_the_others_is_not_lost(documents):
    fact = unit(np.random.default_rng(1).normal(size=SIZE))
    hidden = [*documents, document(np.concatenate([documents[0].vectors, fact[None]]))]
    found, means = document_vectors(hidden), np.stack([one.vector for one in hidden])
    assert (found @ fact).argmax() == len(documents)
    assert (found[-1] - found[0]) @ fact > 5 * (means[-1] - means[0]) @ fact


def test_a_document_is_told_apart_better_than_by_its_mean(documents):
    def margin(vectors: np.ndarray) -> float:
        cosines = [one.vectors @ vectors.T for one in documents]
        own = [row[:, i].mean() for i, row in enumerate(cosines)]
        others = [np.delete(row, i, axis=1).max(1).mean() for i, row in enumerate(cosines)]
        return float(np.mean(own) - np.mean(others))

    assert margin(document_vectors(documents)) > 2 * margin(np.stack([one.vector for one in documents]))


def test_with_a_background_the_company_does_not_matter(documents):
    everything = np.concatenate([one.vectors for one in documents])
    background = everything.T @ everything / len(everything)
    together = document_vectors(documents)
    np.testing.assert_allclose(document_vectors(documents[2:3], background)[0], together[2], atol=1e-4)
    assert np.abs(document_vectors(documents[2:3])[0] - together[2]).max() > 0.01


def test_a_document_without_a_word_has_the_vector_of_its_text():
    model = lam_model.load(device="cpu")
    found = model.encode_passages(["", "The bees find their way by the sun. They dance in the dark."])
    vectors = document_vectors(found)
    np.testing.assert_array_equal(vectors[0], found[0].vector)
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(document_vectors(found[:1])[0], found[0].vector)


def test_what_does_not_fit_is_refused(documents):
    with pytest.raises(ValueError, match="no documents"):
        document_vectors([])
    with pytest.raises(ValueError, match=r"shape \(3, 3\): of vectors of 24 it is \(24, 24\)"):
        document_vectors(documents, np.eye(3))
