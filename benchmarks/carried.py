"""Pass keys found with the carried state and without it, by more keys than `lam eval long` hides.

`python benchmarks/carried.py -o results/carried.json`; the first set of each length is that of `lam eval long`. Vectors
are those of `encode`, in bfloat16.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

import numpy as np
from judged import standard_error
from tqdm import tqdm

import lam_model
from lam_model.evaluation.carrying import carrying
from lam_model.evaluation.long import LAM, WITHOUT_STATE
from lam_model.evaluation.long_sets import RetrievalSet, passkey
from lam_model.evaluation.provenance import provenance
from lam_model.files import write_json
from lam_model.runtime.sentence_transformers import Lam

LENGTHS = (1024, 2048, 4096)  # tokens
SETS = 20  # of each length, with other keys in other places
BATCH = 8
DTYPE = "bfloat16"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    lam = lam_model.load(dtype=DTYPE)
    found = {}
    with tqdm(total=len(LENGTHS) * SETS, unit="set") as progress:
        for length in LENGTHS:
            rows = []
            for seed in range(SETS):
                rows.append(hits(lam, passkey(lam.tokenizer, length, seed)))
                progress.update()
            carried, without = np.concatenate(rows, axis=1)
            found[f"{length:,}"] = {
                "keys": len(carried),
                LAM: round(carried.mean(), 2),
                WITHOUT_STATE: round(without.mean(), 2),
                "standard_error": round(standard_error(carried - without), 2),
            }
    result = {
        "deltanet_sha256": lam.manifest["deltanet_sha256"],
        "dtype": DTYPE,
        "found": found,
        **provenance(shlex.join(["python", *sys.argv])),
    }
    write_json(args.output, result)


def hits(lam: Lam, keys: RetrievalSet) -> np.ndarray:
    """Whether each key's document comes first, 100 or 0: (2, keys), with the carried state and without it."""
    asked = lam.encode(keys.queries)
    vectors = [lam.encode(keys.documents, batch_size=BATCH)]
    with carrying(lam):
        vectors.append(lam.encode(keys.documents, batch_size=BATCH))
    return np.array([100.0 * ((asked @ v.T).argmax(1) == np.arange(len(asked))) for v in vectors])


if __name__ == "__main__":
    main()
