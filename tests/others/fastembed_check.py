"""A model folder in fastembed: mean pooling of the hidden states, and the graph's own vectors without pooling.

`python tests/others/fastembed_check.py MODEL_FOLDER EXPECTED.json`, offline, without lam_model.
"""

from __future__ import annotations

import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
from compare import compare, read
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType

POOLINGS = {"mean": (PoolingType.MEAN, None), "none": (PoolingType.DISABLED, "sentence_embedding")}
BATCH = 8  # texts


def main(folder: str, path: str) -> None:
    texts, tokens, expected = read(path)
    for file in ("onnx/model.onnx", "onnx/model_quantized.onnx", "onnx/model_portable.onnx"):
        for name, (pooling, output) in POOLINGS.items():
            model = f"lam {file} {name}"
            TextEmbedding.add_custom_model(
                model=model,
                pooling=pooling,
                normalization=pooling == PoolingType.MEAN,
                sources=ModelSource(hf=model),
                dim=len(expected[0]),
                model_file=file,
                output_name=output,
            )
            encoder = TextEmbedding(model, specific_model_path=folder)
            if (counted := [encoder.token_count(text) for text in texts]) != tokens:
                sys.exit(f"fastembed reads {max(counted)} tokens of a text that has {max(tokens)}")
            found = np.array(list(encoder.embed(texts, batch_size=BATCH)))
            compare(f"fastembed, {file}, pooling {name}", found, expected)


if __name__ == "__main__":
    main(*sys.argv[1:])
