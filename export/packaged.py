"""The graphs that the package brings, without weights."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch

from lam_model.files import replacing, write_json
from lam_model.folder.base import find_base
from lam_model.folder.tensors import read_config
from lam_model.model.configuration_lam import LamConfig
from lam_model.model.modeling_lam import LamModel
from lam_model.progress import progress
from lam_model.runtime.onnx_source import SIZES, graph_name

from .graph import to_onnx
from .int8 import quantize
from .norms import with_plain_norms
from .weightless import weightless


def write_packaged(out: Path) -> None:
    """Write the graphs of a block, full and base-only, in float32 and int8, for models of all-MiniLM-L6-v2's sizes.

    Args:
        out: a folder, made if it is not there.
    """
    config = read_config(find_base())
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / SIZES, config)
    with progress(total=4, unit="graph") as bar:
        for base_only in (False, True):
            torch.manual_seed(0)
            model = LamModel(LamConfig(**config, base_only=base_only)).eval()
            with torch.no_grad():
                for parameter in model.parameters():  # no two alike, so that each is known again in the graph
                    parameter.normal_()
            weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
            graph = with_plain_norms(to_onnx(model))
            for int8 in (False, True):
                made = weightless(quantize(graph) if int8 else graph, graph, weights)
                with replacing(out / graph_name(base_only, int8)) as beside:
                    onnx.save(made, beside)
                bar.update()
