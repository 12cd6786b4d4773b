"""Scores by mteb's own classes, on made-up task folders."""

from __future__ import annotations

import json

import pytest

import lam_model
from lam_model.evaluation.scores import evaluate, table, without_lam

pytest.importorskip("mteb")

PAIRS = [("a cat sleeps", "a cat is asleep", 5.0), ("a cat sleeps", "stocks fell", 0.1), ("rain", "it rains", 4.0)]
DOCUMENTS = {
    "1": ("Coffee and sleep", "A cup of coffee late in the day shortens the night."),
    "2": ("Bees", "Bees find their way by the sun."),
    "3": ("Interest rates", "Central banks raise rates when prices climb."),
}
QUERIES = {"q1": ("Does coffee disturb sleep?", "1"), "q2": ("How do bees navigate?", "2")}


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One STS and one retrieval task, in the Hub's layout."""
    folder = tmp_path_factory.mktemp("tasks")
    write_rows(
        folder / "mteb" / "stsbenchmark-sts" / "test.jsonl",
        [{"sentence1": a, "sentence2": b, "score": s} for a, b, s in PAIRS],
    )
    scifact = folder / "mteb" / "scifact"
    write_rows(
        scifact / "corpus.jsonl", [{"_id": i, "title": title, "text": text} for i, (title, text) in DOCUMENTS.items()]
    )
    write_rows(scifact / "queries.jsonl", [{"_id": i, "text": text} for i, (text, _) in QUERIES.items()])
    write_rows(scifact / "qrels.jsonl", [{"query-id": i, "corpus-id": d, "score": 1} for i, (_, d) in QUERIES.items()])
    configs = [("default", "test", "qrels"), ("corpus", "corpus", "corpus"), ("queries", "queries", "queries")]
    yaml = "".join(
        f"- config_name: {name}\n  data_files:\n  - split: {split}\n    path: {file}.jsonl\n"
        for name, split, file in configs
    )
    (scifact / "README.md").write_text(f"---\nconfigs:\n{yaml}---\n", encoding="utf-8")
    return folder


def load(base_only=False):
    return lam_model.load(device="cpu", base_only=base_only)


def refuse(base_only=False):
    raise AssertionError("nothing was left to measure")


@pytest.fixture(scope="module")
def evaluated(folder):
    kept = []
    scores, zero_shot = evaluate(
        load, ["STSBenchmark", "SciFact"], folder, done=lambda scores: kept.append(str(scores))
    )
    return scores, zero_shot, kept


def test_every_row_of_both_kinds_of_task_is_measured(evaluated):
    scores, _, _ = evaluated
    both, retrieval = {"STSBenchmark", "SciFact"}, {"SciFact"}
    assert {row: set(by_task) for row, by_task in scores.items()} == {
        "MiniLM, 256 tokens": both,
        "LAM, 256 tokens": both,
        "LAM, whole texts": retrieval,
        "LAM's queries on MiniLM's documents": retrieval,
        "base-only (no DeltaNet layers)": both,
        "MiniLM, 512 tokens": retrieval,
        "BM25": retrieval,
    }
    assert scores["LAM, whole texts"]["SciFact"] == 100
    assert scores["MiniLM, 256 tokens"]["STSBenchmark"] > 50


def test_scores_are_handed_over_one_by_one(evaluated):
    scores, _, kept = evaluated
    assert len(kept) == len(set(kept)) == sum(map(len, scores.values()))


def test_it_is_said_what_the_tasks_are(evaluated):
    assert evaluated[1] == {
        "STSBenchmark": {
            "type": "STS",
            "dataset": "mteb/stsbenchmark-sts",
            "metric": "cosine_spearman",
            "zero_shot": True,
        },
        "SciFact": {"type": "Retrieval", "dataset": "mteb/scifact", "metric": "ndcg_at_10", "zero_shot": True},
    }


def test_what_was_measured_is_not_measured_again(evaluated, folder):
    scores, tasks, _ = evaluated
    assert evaluate(refuse, ["STSBenchmark", "SciFact"], folder, scores) == (scores, tasks)


def test_a_pair_is_lam_and_the_base(folder):
    earlier = {"MiniLM, 256 tokens": {"STSBenchmark": 12.34}}
    scores, _ = evaluate(load, ["STSBenchmark"], folder, earlier, only_pair=True)
    assert list(scores) == ["MiniLM, 256 tokens", "LAM, 256 tokens"]
    assert scores["MiniLM, 256 tokens"] == {"STSBenchmark": 12.34}


def test_a_suite_takes_what_the_folder_has(folder, evaluated, capsys):
    scores, tasks = evaluate(refuse, ["retrieval"], folder, evaluated[0])
    assert list(tasks) == ["SciFact"]
    assert scores == evaluated[0]
    assert "NFCorpus is left out" in capsys.readouterr().out


def test_a_folder_without_tasks_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder of task data"):
        evaluate(refuse, ["SciFact"], tmp_path)


def test_an_unknown_task_is_refused(folder):
    with pytest.raises(ValueError, match=r"no such task.*SciFakt.*suites are sts"):
        evaluate(refuse, ["SciFakt"], folder)


def test_the_table_has_official_figures_and_leaves_out_what_was_not_measured():
    scores = {"LAM": {"SciFact": 1.0, "Other": 2.5}, "BM25": {"SciFact": 68.74}}
    tasks = {"SciFact": {"zero_shot": True}, "Other": {"zero_shot": False}}
    assert table(scores, tasks).splitlines() == [
        "| task | zero-shot | MiniLM, official | LAM | BM25 |",
        "| --- | --- | --- | --- | --- |",
        "| SciFact | yes | 64.51 | 1.00 | 68.74 |",
        "| Other | no |  | 2.50 |  |",
    ]


def test_rows_without_the_deltanet_layers_outlive_other_weights():
    rows = ["MiniLM, 256 tokens", "LAM, 256 tokens", "LAM's queries on MiniLM's documents", "base-only", "BM25"]
    kept = without_lam({row: {} for row in rows})
    assert list(kept) == ["MiniLM, 256 tokens", "base-only", "BM25"]
