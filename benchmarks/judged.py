"""Judged queries of a retrieval task's folder, and nDCG@10 of each: for standard errors, which mteb does not give."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytrec_eval

BEST = 10  # documents


class Split(NamedTuple):
    """Queries and, for each, its relevant documents with their grades; all by their ids."""

    queries: dict[str, str]
    relevant: dict[str, dict[str, int]]


def read(folder: Path) -> tuple[dict[str, str], dict[str, Split]]:
    """The documents by their ids, title and text joined as mteb does, and the splits by name."""
    corpus = {row["_id"]: f"{row['title']} {row['text']}".strip() for row in _lines(folder / "corpus.jsonl")}
    texts = {row["_id"]: row["text"] for row in _lines(folder / "queries.jsonl")}
    splits = {}
    for name in ("test", "train"):
        relevant: dict[str, dict[str, int]] = {}
        for row in _lines(folder / "qrels" / f"{name}.jsonl"):
            relevant.setdefault(str(row["query-id"]), {})[str(row["corpus-id"])] = int(row["score"])
        splits[name] = Split({query: texts[query] for query in relevant}, relevant)
    return corpus, splits


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def ndcg(scores: np.ndarray, split: Split, documents: Collection[str]) -> np.ndarray:
    """nDCG@10 of each query in percent.

    Args:
        scores: (queries, documents).
        documents: their ids.
    """
    names = list(documents)
    best = np.argpartition(-scores, BEST)[:, :BEST]
    run = {query: {names[i]: float(scores[row, i]) for i in best[row]} for row, query in enumerate(split.queries)}
    found = pytrec_eval.RelevanceEvaluator(split.relevant, {f"ndcg_cut.{BEST}"}).evaluate(run)
    return 100 * np.array([found[query][f"ndcg_cut_{BEST}"] for query in split.queries])


def standard_error(values: np.ndarray) -> float:
    """Of their mean."""
    return float(values.std(ddof=1) / len(values) ** 0.5)
