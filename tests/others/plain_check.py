"""A model folder's graphs of whole texts in onnxruntime alone, which has to log no warning.

`python tests/others/plain_check.py MODEL_FOLDER EXPECTED.json`, without lam_model. What the runtime logs goes to the
process's standard error, so a second process runs the graph.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from compare import compare, read
from tokenizers import Tokenizer

GRAPHS = ("model.onnx", "model_quantized.onnx", "model_portable.onnx")
BATCH = 8  # texts
WARNING = 2  # onnxruntime's own default


def main(folder: str, path: str) -> None:
    for graph in GRAPHS:
        process = subprocess.run([sys.executable, __file__, folder, path, graph], stderr=subprocess.PIPE, text=True)
        if process.returncode or process.stderr:
            sys.exit(f"onnxruntime, {graph}: {process.stderr}")


def run(folder: str, path: str, name: str) -> None:
    texts, _, expected = read(path)
    onnxruntime.set_default_logger_severity(WARNING)
    session = onnxruntime.InferenceSession(Path(folder) / "onnx" / name)
    tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    tokenizer.enable_padding()
    found = []
    for start in range(0, len(texts), BATCH):
        rows = tokenizer.encode_batch(texts[start : start + BATCH])
        inputs = {"input_ids": [row.ids for row in rows], "attention_mask": [row.attention_mask for row in rows]}
        found += list(session.run(["sentence_embedding"], {key: np.array(x) for key, x in inputs.items()})[0])
    compare(f"onnxruntime, {name}", np.array(found), expected)


if __name__ == "__main__":
    (main if len(sys.argv) == 3 else run)(*sys.argv[1:])
