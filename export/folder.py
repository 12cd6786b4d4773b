"""ONNX graphs into a model folder, under the names that other runtimes look for: see `export`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx

import lam_model
from lam_model.files import replacing, write_json
from lam_model.folder.base import sha256
from lam_model.folder.manifest import MANIFEST, ONNX
from lam_model.progress import progress

from .check import compare, read, texts
from .graph import to_onnx
from .int8 import quantize
from .norms import with_plain_norms
from .portable import portable
from .whole import whole

VARIANTS = ("full", "base")


def export(
    folder: Path, variants: Sequence[str] = VARIANTS, int8: bool = False, standard: bool = False
) -> list[dict[str, Any]]:
    """Write graphs into `folder`/onnx, each only if it gives torch's vectors, and into the folder's manifest.

    `model*.onnx` read texts as a whole, for other runtimes; `step*.onnx` read a block of each text, for streams.

    Args:
        folder: a LAM's model folder.
        variants: of `VARIANTS`.
        int8: write each variant's int8 graphs too.
        standard: write the full variant's graphs of standard operators too.

    Returns:
        What was measured of each graph, as `verify` returns it.

    Raises:
        FileNotFoundError, ValueError: the folder is no whole LAM, or a graph differs from torch.
    """
    sample, figures = texts(), []
    count = len(variants) * (5 if int8 else 3) + 2 * (standard and "full" in variants)
    with progress(total=count, unit="step") as bar:
        for variant in variants:
            bar.set_description(f"tracing the {variant} variant")
            base_only = variant == "base"
            model = lam_model.load(folder, device="cpu", base_only=base_only)
            expected = read(model, sample)
            config = model[0].auto_model.config
            graph = to_onnx(model[0].auto_model)
            steps = {"": with_plain_norms(graph)}
            if standard and not base_only:
                steps["_portable"] = portable(graph, config.num_attention_heads, config.hidden_size)
            if int8:
                steps["_quantized"] = quantize(steps[""])
            bar.update()
            for form, step in steps.items():
                graphs = {"step": step, "model": whole(step, config.block_size)}
                for kind, made in graphs.items():
                    name = f"{ONNX}{kind}{'_base' * base_only}{form}.onnx"
                    bar.set_description(f"checking {name}")
                    figures.append(_write(folder, name, made, sample, expected))
                    bar.update()
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
