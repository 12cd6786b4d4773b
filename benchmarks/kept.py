"""What tuning cost on SciFact, by all its judged queries, of which mteb asks the 300 of the test split.

`python benchmarks/kept.py DATA/mteb-tasks/mteb/scifact tuned -o results/tune/long/scifact.json` compares the model
folder `tuned`, whose weights were trained on neither split, with the packaged weights.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

import numpy as np
from judged import ndcg, read, standard_error
from sentence_transformers import SentenceTransformer
from tqdm import tqdm

import lam_model
from lam_model.evaluation.provenance import provenance
from lam_model.files import write_json

LENGTHS = {"256 tokens": 256, "whole texts": None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scifact", type=Path, help="the task's folder")
    parser.add_argument("model", help="a model folder")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    corpus, splits = read(args.scifact)
    models = [lam_model.load(), lam_model.load(args.model)]
    found = {}
    for length, tokens in tqdm(LENGTHS.items(), unit="length"):
        scores = []
        for model in models:
            model.max_seq_length = tokens
            documents = encode(model, corpus)
            scores.append({name: ndcg(encode(model, s.queries) @ documents.T, s, corpus) for name, s in splits.items()})
        both = [by_split | {"all": np.concatenate(list(by_split.values()))} for by_split in scores]
        found[length] = {name: compared(before, both[1][name]) for name, before in both[0].items()}
    result = {
        "deltanet_sha256": models[0].manifest["deltanet_sha256"],
        "tuned_deltanet_sha256": models[1].manifest["deltanet_sha256"],
        "queries": {name: len(split.queries) for name, split in splits.items()},
        "ndcg_at_10": found,
    }
    write_json(args.output, result | provenance(shlex.join(["python", *sys.argv]), [args.scifact]))


def encode(model: SentenceTransformer, texts: dict[str, str]) -> np.ndarray:
    return model.encode(list(texts.values()), normalize_embeddings=True, show_progress_bar=False)


def compared(before: np.ndarray, after: np.ndarray) -> dict[str, float]:
    """Means over the queries, and the standard error of their difference."""
    values = {"before": before.mean(), "after": after.mean(), "standard_error": standard_error(after - before)}
    return {name: round(float(value), 2) for name, value in values.items()}


if __name__ == "__main__":
    main()
