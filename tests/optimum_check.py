"""The ONNX files in optimum and in sentence-transformers' own backend: `make optimum` runs this where both agree.

`python tests/optimum_check.py FOLDER`: a model folder with the full graph. It runs without lam_model.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from optimum.onnxruntime import ORTModelForFeatureExtraction
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer

TOLERANCE = 1e-4


def main(folder: str) -> None:
    golden = json.loads((Path(folder) / "manifest.json").read_text(encoding="utf-8"))["golden"]
    texts, expected = [g["text"] for g in golden], np.array([g["vector"] for g in golden])
    model_kwargs = {"file_name": "onnx/model.onnx", "provider": "CPUExecutionProvider"}
    model = SentenceTransformer(folder, backend="onnx", trust_remote_code=True, model_kwargs=model_kwargs)
    report("SentenceTransformer(backend='onnx')", np.abs(model.encode(texts) - expected).max())

    model = ORTModelForFeatureExtraction.from_pretrained(
        folder, subfolder="onnx", file_name="model.onnx", trust_remote_code=True
    )
    tokens = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    tokens.pop("token_type_ids", None)
    hidden = model(**tokens).last_hidden_state
    mask = tokens["attention_mask"][..., None]
    vectors = (hidden * mask).sum(1) / mask.sum(1)
    vectors = (vectors / vectors.norm(dim=1, keepdim=True)).numpy()
    report("ORTModelForFeatureExtraction", np.abs(vectors - expected).max())


def report(what: str, difference: float) -> None:
    versions = ", ".join(f"{name} {version(name)}" for name in ("optimum-onnx", "sentence-transformers", "onnxruntime"))
    if not difference <= TOLERANCE:
        sys.exit(f"{what} differs by {difference:.1e} ({versions})")
    sys.stdout.write(f"{what}: within {difference:.1e} ({versions})\n")


if __name__ == "__main__":
    main(sys.argv[1])
