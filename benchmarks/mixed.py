"""LAM's queries on an index of MiniLM's vectors, by all weights that were ever packaged.

`python benchmarks/mixed.py DATA/mteb-tasks/mteb/scifact DATA/train/pairs.parquet -o results/mixed.json`; `python
results/tables.py` draws the plot. The weights are read from the repository's history. A line through all of them, which
starts at no loss for equal vectors, says what loss to expect at a cosine: the queries of one task are too few to tell.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from judged import Split, ndcg, read, standard_error
from tqdm import tqdm

import lam_model
from lam_model.evaluation.compare import load_base
from lam_model.evaluation.provenance import provenance
from lam_model.files import write_json
from lam_model.folder.base import sha256
from lam_model.folder.build import PACKAGED_WEIGHTS
from lam_model.training.tasks import read_task, sample

ROOT = Path(__file__).parents[1]
PAIRS = 3000  # drawn, their passages are the corpus
TOKENS = 256  # all texts are cut there
DEALS = 100
SEED = 0


class Judged(NamedTuple):
    """Queries and what answers them, MiniLM's vectors of them, the documents' ids, MiniLM's vectors of these."""

    split: Split
    vectors: np.ndarray
    documents: list[str]
    document_vectors: np.ndarray

    def ndcg(self, vectors: np.ndarray) -> np.ndarray:
        """nDCG@10 of each query, in percent, asked with such vectors (queries, size)."""
        return ndcg(vectors @ self.document_vectors.T, self.split, self.documents)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scifact", type=Path, help="the task's folder")
    parser.add_argument("pairs", type=Path, help="a file with queries and passages")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    sets = judged_sets(args.scifact, args.pairs)
    own = {name: judged.ndcg(judged.vectors) for name, judged in sets.items()}
    rows, lost = zip(*(measure(commit, sets, own) for commit in tqdm(commits(), unit="weights")), strict=True)
    result = {
        "deltanet_sha256": sha256(PACKAGED_WEIGHTS),
        "seed": SEED,
        "queries": {name: len(judged.split.queries) for name, judged in sets.items()},
        "minilm": {name: round(scores.mean(), 2) for name, scores in own.items()},
        "weights": list(rows),
        "trend": {name: trend(rows, [by_set[name] for by_set in lost], name) for name in sets},
        **provenance(shlex.join(["python", *sys.argv]), [args.scifact, args.pairs]),
    }
    write_json(args.output, result)


def judged_sets(scifact: Path, pairs: Path) -> dict[str, Judged]:
    """SciFact's test and training queries, and questions, titles and terms with their passages."""
    base = load_base()
    corpus, splits = read(scifact)
    drawn = sample(read_task(str(pairs)), PAIRS)
    answers = {query: dict.fromkeys(documents, 1) for query, documents in drawn.relevant.items()}
    found = {}
    for texts, named in (
        (corpus, {f"SciFact, {name}": split for name, split in splits.items()}),
        (drawn.corpus, {"pairs": Split(drawn.queries, answers)}),
    ):
        vectors = encode(base, texts.values())
        for name, split in named.items():
            found[name] = Judged(split, encode(base, split.queries.values()), list(texts), vectors)
    return found


def encode(model: Any, texts: Iterable[str]) -> np.ndarray:
    model.max_seq_length = TOKENS
    return model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)


def commits() -> list[str]:
    """Those that changed the packaged weights, the oldest first."""
    log = ["git", "log", "--reverse", "--format=%h", "--", str(PACKAGED_WEIGHTS)]
    return subprocess.run(log, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()


def measure(
    commit: str, sets: dict[str, Judged], own: dict[str, np.ndarray]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """For each set nDCG@10, the standard error of its difference to MiniLM's own, and the cosine to MiniLM's queries.

    Beside them what such errors do by chance: MiniLM's queries of the first set, each moved by the error that LAM's
    vector of another query has. Apart from all that, for each set what each query loses.
    """
    show = ["git", "show", f"{commit}:{PACKAGED_WEIGHTS.relative_to(ROOT)}"]
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        subprocess.run(show, cwd=ROOT, check=True, stdout=file)
        model = lam_model.load(weights=file.name)
    row: dict[str, Any] = {"commit": commit, "deltanet_sha256": model.manifest["deltanet_sha256"]}
    errors, lost = [], {}
    for name, judged in sets.items():
        vectors = encode(model, judged.split.queries.values())
        errors.append(vectors - judged.vectors)
        found = judged.ndcg(vectors)
        lost[name] = own[name] - found
        row[name] = {
            "ndcg_at_10": round(found.mean(), 2),
            "standard_error": round(standard_error(lost[name]), 2),
            "cosine": round(float((vectors * judged.vectors).sum(1).mean()), 4),
        }
    first, pool = next(iter(sets.values())), np.concatenate(errors)
    draw = np.random.default_rng(SEED)
    dealt = [
        first.ndcg(first.vectors + draw.choice(pool, len(first.vectors), replace=False)).mean() for _ in range(DEALS)
    ]
    row["by_chance"] = {"mean": round(np.mean(dealt), 2), "deviation": round(np.std(dealt), 2)}
    return row, lost


def trend(rows: Sequence[dict[str, Any]], lost: Sequence[np.ndarray], name: str) -> dict[str, float]:
    """The loss for each 0.01 of cosine: the slope of a line through the origin, by least squares over all weights.

    Its standard error is that of the queries, which are the same for all weights.
    """
    distance = np.array([1 - row[name]["cosine"] for row in rows])
    by_query = 0.01 * distance @ np.stack(lost) / (distance @ distance)
    return {"lost": round(by_query.mean(), 3), "standard_error": round(standard_error(by_query), 3)}


if __name__ == "__main__":
    main()
