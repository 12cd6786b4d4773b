"""Scores among long documents: every row ranks by what it says it does."""

from __future__ import annotations

import folders as folder
import numpy as np
import pytest
import torch
from conftest import BLOCK

import lam_model
from lam_model.evaluation.carrying import carrying
from lam_model.evaluation.compare import limited, load_base
from lam_model.evaluation.long import _encoders, evaluate_long, long_table, score
from lam_model.evaluation.long_sets import RetrievalSet

pytest.importorskip("bm25s")

QUERIES = ["How do bees find their way?", "What shortens the night?"]
FILLER = "The committee met again in the spring and spoke of roads. " * 60
DOCUMENTS = [
    f"{FILLER}A cup of coffee late in the day shortens the night. {FILLER}",
    f"Bees find their way by the sun. {FILLER}",
    FILLER,
]
SET = RetrievalSet(QUERIES, DOCUMENTS, [{1}, {0}], "accuracy")


@pytest.fixture(scope="module")
def lam():
    return lam_model.load(device="cpu")


@pytest.fixture(scope="module")
def minilm():
    return load_base()


@pytest.fixture(scope="module")
def ranked(lam, minilm):
    """The similarities of every row."""
    found = {}
    for rows, rank in _encoders(lam, minilm).items():
        found |= zip(rows, rank(QUERIES, DOCUMENTS), strict=True)
    return found


def test_every_row_is_measured_once(lam):
    kept = []
    scores = evaluate_long(lam, {"some": SET}, done=lambda scores: kept.append(sum(map(len, scores.values()))))
    assert list(scores) == [
        "LAM",
        "LAM, document vector",
        "LAM, best passage",
        "LAM, best passage embedded alone",
        "LAM without carried state",
        "LAM without carried state, document vector",
        "LAM without carried state, best passage",
        "MiniLM, mean of pieces",
        "MiniLM, best piece",
        "MiniLM, 256 tokens",
        "BM25",
    ]
    assert scores["BM25"] == scores["LAM, best passage embedded alone"] == {"some": 100.0}
    assert scores["MiniLM, 256 tokens"]["some"] < 100  # the coffee is further on
    assert kept == [4, 7, 9, 10, 11]
    again = evaluate_long(lam, {"some": SET}, scores, done=lambda scores: pytest.fail("measured again"))
    assert again == scores


def test_vectors_of_documents_and_passages(lam, ranked):
    asked = lam.encode(QUERIES)
    np.testing.assert_allclose(ranked["LAM"], asked @ lam.encode(DOCUMENTS).T, atol=1e-5)
    found = lam.encode_passages(DOCUMENTS)
    np.testing.assert_allclose(ranked["LAM, document vector"], asked @ lam_model.document_vectors(found).T, atol=1e-5)
    best = [[max(query @ vector for vector in one.vectors) for one in found] for query in asked]
    np.testing.assert_allclose(ranked["LAM, best passage"], best, atol=1e-5)
    alone = [
        [
            max(query @ lam.encode([text[i:j] for i, j in one.offsets]).T)
            for text, one in zip(DOCUMENTS, found, strict=True)
        ]
        for query in asked
    ]
    np.testing.assert_allclose(ranked["LAM, best passage embedded alone"], alone, atol=1e-5)


def test_pieces_are_read_by_themselves_and_weigh_as_their_tokens(minilm, ranked):
    ids = minilm.tokenizer(DOCUMENTS, add_special_tokens=False, truncation=False)["input_ids"]
    with limited(minilm, 512):
        asked = minilm.encode(QUERIES)
        for i, row in enumerate(ids):
            pieces = [row[start : start + 510] for start in range(0, len(row), 510)]
            assert len(pieces) > 1
            vectors = minilm.encode(minilm.tokenizer.batch_decode(pieces))
            mean = np.average(vectors, axis=0, weights=list(map(len, pieces)))
            cosine = asked @ mean / np.linalg.norm(mean)
            np.testing.assert_allclose(ranked["MiniLM, mean of pieces"][:, i], cosine, atol=1e-5)
            np.testing.assert_allclose(ranked["MiniLM, best piece"][:, i], (asked @ vectors.T).max(1), atol=1e-5)
    np.testing.assert_allclose(ranked["MiniLM, 256 tokens"], asked @ minilm.encode(DOCUMENTS).T, atol=1e-5)


def test_bm25_finds_nothing_by_stop_words_alone(lam, minilm):
    bm25 = _encoders(lam, minilm)["BM25",]
    (similarity,) = bm25(["coffee", "of the", ""], DOCUMENTS)
    assert similarity[0].max() > 0
    assert not similarity[1:].any()


def test_without_carried_state_every_block_starts_afresh(tiny_base, tiny_weights, lively_gates, sentences, tmp_path):
    tiny = lam_model.load(folder.build(tmp_path / "lam", tiny_weights, tiny_base), device="cpu")
    model = lively_gates(tiny[0].auto_model)
    text = sentences(1, 2 * BLOCK + 7)[0]
    with carrying(tiny):
        found = tiny.encode(text)
    ids = tiny.tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        blocks = [
            model.forward_block(block, torch.ones_like(block), None, first_block=i == 0).last_hidden_state.sum(1)
            for i, block in enumerate(ids.split(BLOCK, dim=1))
        ]
    assert len(blocks) == 3
    mean = sum(blocks)[0].numpy()
    np.testing.assert_allclose(found, mean / np.linalg.norm(mean), atol=1e-5)
    assert np.abs(found - tiny.encode(text)).max() > 1e-3  # the state is carried again, and it matters


@pytest.mark.parametrize(
    ("metric", "relevant", "expected"),
    [
        ("accuracy", [{2}, {0}], 0.5),
        ("ndcg@10", [{2}, {0}], (1 + 1 / np.log2(3)) / 2),
        ("ndcg@10", [{1, 2}, {0, 1, 2}], (1 + 1) / 2),
        ("ndcg@10", [{0}, {0, 2}], (1 / 2 + (1 / np.log2(3) + 1 / 2) / (1 + 1 / np.log2(3))) / 2),
    ],
)
def test_scores(metric, relevant, expected):
    similarity = np.array([[0.1, 0.2, 0.3], [0.2, 0.3, 0.1]])
    found = score(similarity, RetrievalSet(["", ""], ["", "", ""], relevant, metric))
    assert found == pytest.approx(expected)


def test_only_ten_ranks_count():
    similarity = -np.arange(12.0)[None]
    one = RetrievalSet([""], [""] * 12, [{10}], "ndcg@10")
    assert score(similarity, one) == 0
    assert score(similarity, one._replace(relevant=[{9}])) == pytest.approx(1 / np.log2(11))


def test_the_table_leaves_out_what_was_not_measured():
    sets = {"a": {"queries": 2, "documents": 3, "metric": "accuracy"}}
    assert long_table({"LAM": {"a": 50.0}, "BM25": {}}, sets).splitlines() == [
        "| set | queries | documents | metric | LAM | BM25 |",
        "| --- | --- | --- | --- | --- | --- |",
        "| a | 2 | 3 | accuracy | 50.00 |  |",
    ]
