"""Scores of LAM's and MiniLM's vectors cut to fewer numbers, from one pass over the texts.

`python benchmarks/dims.py --folder DATA/mteb-tasks -o results/dims.json`
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import lam_model
from lam_model.evaluation.compare import load_base
from lam_model.evaluation.provenance import provenance
from lam_model.evaluation.scores import reading_from
from lam_model.files import write_json
from lam_model.runtime.loading import DISTILLED

TASKS = ("STSBenchmark", "STS12", "STS16", "SICK-R", "SciFact")


def cut(model: Any, dim: int, known: dict[tuple[str, ...], np.ndarray]) -> Any:
    """An mteb encoder that gives the first `dim` numbers of a model's vectors, which are kept in `known`."""
    from mteb.models import SentenceTransformerEncoderWrapper

    class Cut(SentenceTransformerEncoderWrapper):
        def encode(self, inputs: Any, **kwargs: Any) -> np.ndarray:
            texts = tuple(text for batch in inputs for text in batch["text"])
            if texts not in known:
                known[texts] = super().encode(inputs, **kwargs)
            return known[texts][:, :dim]

    return Cut(model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="holds the tasks' data: mteb/scifact, ...")
    parser.add_argument("--weights", type=Path, help="of DeltaNet layers: measure these, and not MiniLM beside them")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    output, folder = args.output.resolve(), args.folder.resolve()
    output.parent.mkdir(parents=True, exist_ok=True)
    lam, base = lam_model.load(device="cpu", weights=args.weights or DISTILLED), load_base()
    lam.max_seq_length = base.max_seq_length
    models = {"LAM": lam} if args.weights else {"LAM": lam, "MiniLM": base}
    scores: dict[str, dict[str, dict[str, float]]] = {name: {} for name in models}
    with reading_from(folder):
        import mteb

        for name, model in models.items():
            known: dict[tuple[str, ...], np.ndarray] = {}
            for task in tqdm(mteb.get_tasks(tasks=list(TASKS)), desc=name):
                for dim in lam.dims:
                    result = mteb.evaluate(cut(model, dim, known), task, cache=None, show_progress_bar=False)[0]
                    by_task = scores[name].setdefault(str(dim), {})
                    by_task[task.metadata.name] = round(100 * float(result.get_score()), 2)
    write_json(
        output,
        {
            "deltanet_sha256": lam.manifest["deltanet_sha256"],
            "max_tokens": base.max_seq_length,
            "scores": scores,
            **provenance(shlex.join(["python", *sys.argv]), [folder]),
        },
    )


if __name__ == "__main__":
    main()
