"""Scores of passages in their documents: every row ranks by what it says it does."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import lam_model
from lam_model import cli
from lam_model.corpus.documents import Document
from lam_model.evaluation import context
from lam_model.evaluation.compare import limited, load_base
from lam_model.evaluation.context import context_table, cut_documents, evaluate_context, figures, right_passages
from lam_model.evaluation.context_sets import ContextSet, Question
from lam_model.reading.cutting import passage_offsets
from lam_model.reading.passages import Passages
from lam_model.reading.tokenizing import plain_tokenizer

pytest.importorskip("bm25s")

BEES = "Bees dance to show the way. They turn towards the sun. A cup of coffee late in the day shortens the night. "
DOCUMENTS = [
    Document(BEES + "The committee met in spring and spoke of roads. " * 90, "Bees"),
    Document(""),
    Document("One passage alone, of trams.", "Trams"),
]
QUESTIONS = [
    Question("Where do bees turn?", 0, [(28, 54)]),
    Question("What shortens the night?", 0, [(55, 105)]),
    Question("What runs on rails?", 2, [(0, 28)]),
]
SET = ContextSet(DOCUMENTS, QUESTIONS)
SIZE = 16
OFFSETS = [np.array([[0, 10], [11, 20], [20, 30]]), np.empty((0, 2), np.int64), np.array([[0, 5]])]


@pytest.fixture(scope="module")
def lam():
    return lam_model.load(device="cpu")


@pytest.fixture(scope="module")
def minilm():
    return load_base()


@pytest.fixture(scope="module")
def cut(lam):
    return cut_documents(lam, SET, SIZE)


@pytest.fixture(scope="module")
def ranked(lam, minilm, cut):
    """The rankings of every row."""
    found = {}
    for rows, rank in context._encoders(lam, minilm).items():
        found |= zip(rows, rank([one.query for one in QUESTIONS], cut), strict=True)
    return found


def test_a_passage_is_right_if_it_overlaps_a_span():
    def right(*spans):
        return right_passages(Question("?", 0, list(spans)), OFFSETS[0])

    assert right((0, 10)) == {0}
    assert right((9, 12)) == {0, 1}
    assert right((20, 21)) == {2}
    assert right((0, 1), (19, 21)) == {0, 1, 2}
    with pytest.raises(ValueError, match="no passage has the spans"):
        right((10, 11))
    with pytest.raises(ValueError, match="no passage has the spans"):
        right_passages(Question("?", 1, [(0, 1)]), OFFSETS[1])


def test_figures_by_hand():
    questions = [Question("", 0, [(0, 12)]), Question("", 2, [(0, 5)])]
    similarity = np.array([[0.4, 0.1, 0.3, 0.2], [0.4, 0.3, 0.1, 0.2]])  # ranks 1 and 4 of 4; 1 and 3 of 3; rank 3
    found = figures([similarity], questions, OFFSETS)
    best = 1 + 1 / np.log2(3)
    everywhere = [(1 + 1 / np.log2(5)) / best, 1 / np.log2(4)]
    within = [(1 + 1 / np.log2(4)) / best, 1]
    assert found["all"] == pytest.approx(100 * np.mean(everywhere), abs=0.01)
    assert found["within"] == pytest.approx(100 * np.mean(within), abs=0.01)
    assert found["first"] == 50
    assert found["all_error"] == pytest.approx(100 * np.std(everywhere) / 2**0.5, abs=0.01)
    assert found["first_error"] == pytest.approx(100 * 0.5 / 2**0.5, abs=0.01)


def test_rankings_are_fused_by_the_reciprocals_of_their_ranks():
    first, second = np.array([0.9, 0.5, 0.7]), np.array([-np.inf, 2.0, 3.0])
    expected = [1 / 61, 1 / 63 + 1 / 62, 1 / 62 + 1 / 61]  # the first is not in the second ranking
    np.testing.assert_allclose(context._fused([first, second]), [expected])
    np.testing.assert_array_equal(context._fused([first]), [first])


def test_passages_are_those_of_encode_passages(lam, cut):
    found = lam.encode_passages(cut.texts, size=SIZE)
    for offsets, one in zip(cut.offsets, found, strict=True):
        np.testing.assert_array_equal(offsets, one.offsets)
    assert list(map(len, cut.offsets))[1:] == [0, 1]
    assert cut.passages[-1] == DOCUMENTS[2].text
    assert cut.titled[-1] == f"Trams {DOCUMENTS[2].text}"
    assert cut.passages[0] == BEES[cut.offsets[0][0][0] : cut.offsets[0][0][1]]


def test_rows_of_lam_and_of_words(lam, cut, ranked):
    asked = lam.encode([one.query for one in QUESTIONS])
    np.testing.assert_allclose(ranked["LAM alone"][0], asked @ lam.encode(cut.passages).T, atol=1e-5)
    titled = asked @ lam.encode(cut.titled).T
    np.testing.assert_allclose(ranked["LAM, title before each passage"][0], titled, atol=1e-5)
    found = np.concatenate([one.vectors for one in lam.encode_passages(cut.texts, size=SIZE, title=cut.titles)])
    (similarity,) = ranked["LAM in its document"]
    np.testing.assert_allclose(similarity, asked @ found.T, atol=1e-5)
    same, words = ranked["LAM in its document + BM25"]
    assert same is similarity
    (alone,), (with_title,) = ranked["BM25"], ranked["BM25, title before each passage"]
    np.testing.assert_array_equal(words, np.where(alone > 0, alone, -np.inf))
    assert not alone[2].any()  # no passage has a word of the query
    assert (with_title[0] > 0).sum() > (alone[0] > 0).sum()


def test_rows_of_minilm(minilm, cut, ranked):
    with limited(minilm, 512):
        asked = minilm.encode([one.query for one in QUESTIONS])
        np.testing.assert_allclose(ranked["MiniLM alone"][0], asked @ minilm.encode(cut.passages).T, atol=1e-5)
        titled = asked @ minilm.encode(cut.titled).T
    np.testing.assert_allclose(ranked["MiniLM, title before each passage"][0], titled, atol=1e-5)


def test_late_chunking_pools_a_passage_of_a_window_of_whole_passages(minilm, cut, ranked):
    with limited(minilm, 512):
        asked = minilm.encode([one.query for one in QUESTIONS])
    tokenizer = plain_tokenizer(minilm.tokenizer)
    vectors = []
    for text, offsets in zip(cut.texts, cut.offsets, strict=True):
        lengths = [len(tokenizer.encode(text[i:j], add_special_tokens=False)) for i, j in offsets]
        begin = 0
        while begin < len(lengths):
            end = begin + int((np.cumsum(lengths[begin:]) <= 510).sum())
            ids = tokenizer.encode(text[offsets[begin][0] : offsets[end - 1][1]]).ids
            row = torch.tensor([ids])
            with torch.inference_mode():
                tokens = minilm({"input_ids": row, "attention_mask": torch.ones_like(row)})["token_embeddings"][0]
            parts = tokens[1:-1].split(lengths[begin:end])
            vectors += [torch.nn.functional.normalize(part.mean(0), dim=0).numpy() for part in parts]
            begin = end
    assert len(vectors) == len(cut.passages)
    np.testing.assert_allclose(ranked["MiniLM, late chunking"][0], asked @ np.stack(vectors).T, atol=1e-5)


class Fake:
    """Words are the axes of a vector; in a document, a passage has the words of the one before it, too."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def encode(self, texts):
        rows = np.zeros((len(texts), 64), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().split():
                row[sum(map(ord, word)) % 64] += 1
        return rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-9)

    def encode_passages(self, texts, size, title):
        found = []
        for text, offsets in zip(texts, passage_offsets(plain_tokenizer(self.tokenizer), texts, size), strict=True):
            alone = self.encode([text[i:j] for i, j in offsets])
            found.append(Passages(alone.sum(0), alone + np.pad(alone, ((1, 0), (0, 0)))[:-1], offsets))
        return found


def test_every_row_set_and_size_is_measured_once(lam):
    fake, kept = Fake(lam.tokenizer), []
    sets = {"some": SET, "made": SET._replace(metric="accuracy", size=32)}
    scores = evaluate_context(fake, sets, [16, 24], done=lambda scores: kept.append(json.dumps(scores)))
    assert list(scores) == [
        "LAM alone",
        "LAM in its document",
        "LAM in its document + BM25",
        "LAM, title before each passage",
        "MiniLM alone",
        "MiniLM, title before each passage",
        "MiniLM, late chunking",
        "BM25",
        "BM25, title before each passage",
    ]
    for by_set in scores.values():
        assert {name: list(by_size) for name, by_size in by_set.items()} == {"some": ["16", "24"], "made": ["32"]}
    assert len(kept) == 3 * 8
    assert json.loads(kept[-1]) == scores
    again = evaluate_context(fake, sets, [16, 24], scores, done=lambda scores: pytest.fail("measured again"))
    assert again == scores
    stopped = json.loads(kept[9])
    assert evaluate_context(fake, sets, [16, 24], stopped, done=lambda scores: kept.append("")) == scores
    assert len(kept) == 3 * 8 + 14


def test_a_size_that_no_passage_has_is_refused():
    for size in (0, 511):
        with pytest.raises(ValueError, match="from 1 to 510 tokens"):
            evaluate_context(None, {}, [80, size])


def test_the_table_shows_what_was_measured(monkeypatch):
    measured = {"all": 31.62, "all_error": 1.21, "within": 43.2, "within_error": 1, "first": 20, "first_error": 1.5}
    scores = {"LAM alone": {"a": {"80": measured}, "b": {"32": measured}}, "BM25": {"a": {}}}
    sets = {name: {"metric": metric} for name, metric in (("a", "ndcg@10"), ("b", "accuracy"), ("c", "ndcg@10"))}
    lines = [
        "|  | a, 80 tokens: all / within | b, 32 tokens: first hits |",
        "| --- | --- | --- |",
        "| LAM alone | 31.6 ± 1.2 / 43.2 ± 1.0 | 20.0 ± 1.5 |",
        "| BM25 |  |  |",
    ]
    assert context_table(scores, sets).splitlines() == lines
    monkeypatch.setattr(context, "TRAINED_ON", {"b"})
    marked = context_table(scores, sets).splitlines()
    assert marked[0] == lines[0].replace("b,", r"b\*,")
    assert marked[-1] == r"\* LAM was trained on this set."


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "tiny"
    made.mkdir()
    rows = [{"_id": str(i), "title": one.title, "text": one.text} for i, one in enumerate(DOCUMENTS)]
    (made / "documents.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [{"query": one.query, "document": str(one.document), "spans": one.spans} for one in QUESTIONS]
    (made / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return made


def test_the_command_keeps_figures_and_measures_nothing_again(lam, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lam_model, "load", lambda *args, **options: lam, raising=False)
    command = ["eval", "context", str(folder), "--sizes", "32", "-o", str(tmp_path / "context.json")]
    assert cli.main(command) == 0
    kept = json.loads((tmp_path / "context.json").read_text())
    assert kept["tasks"] == {"tiny": {"queries": 3, "documents": 3, "metric": "ndcg@10"}}
    assert len(kept["scores"]) == 9
    assert kept["deltanet_sha256"] == lam.manifest["deltanet_sha256"]
    assert set(kept["data_sha256"]) == {"tiny/documents.jsonl", "tiny/queries.jsonl"}
    printed = capsys.readouterr().out
    assert "tiny, 32 tokens: all / within" in printed
    monkeypatch.setattr(lam, "encode_passages", None)
    assert cli.main(command) == 0
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["context"], "name folders after `context`"),
        (["context", "tiny", "other/tiny"], "two folders are named tiny"),
        (["context", "tiny", "--folder", "."], "name the folders of `lam eval context`"),
        (["context", "nowhere"], "documents.jsonl does not exist"),
        (["context", "tiny", "-o", "tiny/queries.jsonl"], "would be replaced"),
        (["context", "--articles", "tiny/documents.jsonl"], "is held out"),
        (["sts", "--sizes", "32"], "for `lam eval context`"),
    ],
)
def test_the_command_refuses_what_it_cannot_do(folder, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(folder.parent)
    monkeypatch.setattr(lam_model, "load", lambda *args, **options: pytest.fail("loaded"), raising=False)
    assert cli.main(["eval", *arguments]) == 2
    assert message in capsys.readouterr().err
