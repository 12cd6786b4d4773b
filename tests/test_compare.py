"""LAM beside the base: vectors, and scores by mteb's own classes on a made-up task folder."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lam_model import compare


class Model:
    """Vectors that depend on the texts' lengths; records the limit that it was called under."""

    max_seq_length = 256

    def __init__(self, shift):
        self.shift, self.limits = shift, []

    def encode(self, texts, **kwargs):
        self.limits.append(self.max_seq_length)
        vectors = np.stack([np.cos(np.arange(4) * len(t) + self.shift) for t in texts])
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_equal_vectors_have_cosine_one():
    figures = compare.compare_texts(Model(0), Model(0), [f"{'x' * i}" for i in range(1, 70)])
    assert figures["texts"] == 69
    assert figures["cosine"] == figures["worst_5_percent"] == 1


def test_the_worst_texts_are_worse_than_the_mean():
    figures = compare.compare_texts(Model(0), Model(0.3), [f"{'x' * i}" for i in range(1, 70)])
    assert figures["worst_5_percent"] < figures["cosine"] < 1


def test_both_read_as_many_tokens_as_the_base_and_the_limit_is_put_back():
    lam, base = Model(0), Model(0)
    lam.max_seq_length = 10**9
    compare.compare_texts(lam, base, ["a", "bb"])
    assert set(lam.limits) == {256}
    assert lam.max_seq_length == 10**9


def test_a_folder_without_tasks_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder of task data"):
        compare.compare_tasks(lambda **_: None, ["SciFact"], tmp_path)


def test_the_table_leaves_out_what_was_not_measured():
    table = compare.table({"LAM": {"A": 1.0, "B": 2.5}, "BM25": {"B": 68.74}})
    assert table.splitlines() == [
        "|  | A | B |",
        "| --- | --- | --- |",
        "| LAM | 1.00 | 2.50 |",
        "| BM25 |  | 68.74 |",
    ]


def test_tasks_are_scored_by_mteb_and_kept_as_they_come(tmp_path):
    pytest.importorskip("mteb")
    import lam_model

    sts = tmp_path / "mteb" / "stsbenchmark-sts"
    sts.mkdir(parents=True)
    pairs = [("a cat sleeps", "a cat is asleep", 5.0), ("a cat sleeps", "stocks fell", 0.1), ("rain", "it rains", 4.0)]
    rows = [{"sentence1": a, "sentence2": b, "score": s} for a, b, s in pairs]
    (sts / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    kept = []
    scores = compare.compare_tasks(
        lambda base_only=False: lam_model.load(device="cpu", base_only=base_only),
        ["STSBenchmark"],
        tmp_path,
        {"MiniLM, 256 tokens": {"STSBenchmark": 12.34}},
        lambda scores: kept.append(len(scores)),
    )
    assert scores["MiniLM, 256 tokens"] == {"STSBenchmark": 12.34}  # not measured again
    assert scores["LAM, 256 tokens"]["STSBenchmark"] > 50
    assert kept == [2, 3]
