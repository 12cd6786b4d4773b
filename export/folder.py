"""ONNX graphs into a model folder, where sentence-transformers and others look for them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from tqdm import tqdm

import lam_model
from lam_model.files import replacing, write_json
from lam_model.folder.base import sha256
from lam_model.folder.manifest import MANIFEST, ONNX
from lam_model.runtime.onnx_encoder import graph_file

from .check import compare, texts
from .graph import to_onnx
from .int8 import quantize
from .norms import with_plain_norms
from .portable import portable

VARIANTS = ("full", "base")
PORTABLE = f"{ONNX}model_portable.onnx"


def export(
    folder: Path, variants: Sequence[str] = VARIANTS, int8: bool = False, standard: bool = False
) -> list[dict[str, Any]]:
    """Write graphs into `folder`/onnx, each only if it gives torch's vectors, and into the folder's manifest.

    Args:
        folder: a LAM's model folder.
        variants: of `VARIANTS`.
        int8: write each variant's int8 graph too.
        standard: write the full variant's graph of standard operators too.

    Returns:
        What was measured of each graph, as `verify` returns it.

    Raises:
        FileNotFoundError, ValueError: the folder is no whole LAM, or a graph differs from torch.
    """
    sample, figures = texts(), []
    count = len(variants) * (3 if int8 else 2) + (standard and "full" in variants)
    with tqdm(total=count, unit="step", disable=None) as progress:
        for variant in variants:
            progress.set_description(f"tracing the {variant} variant")
            base_only = variant == "base"
            model = lam_model.load(folder, device="cpu", base_only=base_only)
            expected = model.encode(sample)
            config = model[0].auto_model.config
            graph = to_onnx(model[0].auto_model)
            graphs = {graph_file(base_only): with_plain_norms(graph)}
            if standard and not base_only:
                graphs[PORTABLE] = portable(graph, config.num_attention_heads, config.hidden_size)
            if int8:
                graphs[graph_file(base_only, int8=True)] = quantize(graphs[graph_file(base_only)])
            progress.update()
            for name, made in graphs.items():
                progress.set_description(f"checking {name}")
                figures.append(_write(folder, name, made, sample, expected))
                progress.update()
    return figures


def _write(folder: Path, name: str, graph: onnx.ModelProto, sample: list[str], expected: Any) -> dict[str, Any]:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as beside:
        onnx.save(graph, beside)
        figures = compare(folder, path, sample, expected, written=beside)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    manifest["sha256"][name] = sha256(path)
    write_json(folder / MANIFEST, manifest)
    return figures
