"""nDCG@10 of questions, titles and terms among passages: what tuning for one domain did to others.

`python benchmarks/pairs.py DATA/train/pairs.parquet tuned -o results/tune/scifact/pairs.json` compares the model folder
`tuned` with the packaged weights and MiniLM on pairs that none of them was trained on as pairs.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from tqdm import tqdm

import lam_model
from lam_model.evaluation.compare import load_base
from lam_model.evaluation.provenance import provenance
from lam_model.files import write_json
from lam_model.training.tasks import read_task, sample

QUERIES = 3000  # drawn, their passages are the corpus
TOKENS = 256  # all texts are cut there


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", type=Path, help="a file with queries and passages")
    parser.add_argument("model", help="a model folder")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    task = sample(read_task(str(args.pairs)), QUERIES)
    evaluator = InformationRetrievalEvaluator(
        task.queries, task.corpus, {q: set(d) for q, d in task.relevant.items()}, ndcg_at_k=[10], write_csv=False
    )
    tuned = lam_model.load(args.model)
    models = {"MiniLM": load_base(), "LAM": lam_model.load(), "LAM, tuned": tuned}
    scores = {}
    for name, model in tqdm(models.items(), unit="model"):
        model.max_seq_length = TOKENS
        scores[name] = round(100 * float(evaluator(model)[evaluator.primary_metric]), 2)
    write_json(
        args.output,
        {
            "tuned_deltanet_sha256": tuned.manifest["deltanet_sha256"],
            "queries": len(task.queries),
            "passages": len(task.corpus),
            "ndcg_at_10": scores,
            **provenance(shlex.join(["python", *sys.argv]), [args.pairs]),
        },
    )


if __name__ == "__main__":
    main()
