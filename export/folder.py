"""ONNX graphs into a model folder, where sentence-transformers and others look for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx

import lam_model
from lam_model.files import replacing

from .check import compare, texts
from .graph import to_onnx

FILES = {"full": "model.onnx", "base": "model_base.onnx"}  # by variant


def export(folder: Path, variants: Sequence[str] = tuple(FILES)) -> list[dict[str, Any]]:
    """Write graphs into `folder`/onnx, each only if it gives torch's vectors.

    Args:
        folder: a LAM's model folder.
        variants: of `FILES`.

    Returns:
        What was measured of each graph, as `verify` returns it.

    Raises:
        FileNotFoundError, ValueError: the folder is no whole LAM, or a graph differs from torch.
    """
    (folder / "onnx").mkdir(exist_ok=True)
    sample, figures = texts(), []
    for variant in variants:
        model = lam_model.load(folder, device="cpu", base_only=variant == "base")
        path = folder / "onnx" / FILES[variant]
        with replacing(path) as beside:
            onnx.save(to_onnx(model[0].auto_model), beside)
            figures.append(compare(folder, beside, sample, model.encode(sample)) | {"file": path.name})
    return figures
