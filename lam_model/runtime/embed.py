"""Vectors of a model folder, on whichever runtime it can be run with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .onnx_encoder import OnnxEncoder


def embed(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """Unit vectors of texts, (texts, size): by ONNX Runtime where there is a graph for the folder, else by torch.

    Raises:
        FileNotFoundError, ValueError: naming the file that is missing or damaged.
        ModuleNotFoundError: there is no graph, and torch is not installed.
    """
    try:
        encoder = OnnxEncoder(folder)
    except FileNotFoundError:
        from sentence_transformers import SentenceTransformer

        return SentenceTransformer(str(folder), device="cpu", local_files_only=True).encode(list(texts))
    return encoder.encode(texts)
