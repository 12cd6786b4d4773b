"""What a LAM on ONNX Runtime is made of: a graph, the weights that it is given, sizes and tokenizer, all checked.

The package has graphs without weights: they are the same for every model of one set of sizes. A folder's own graphs
hold their weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from ..folder.base import find_part, sha256
from ..folder.build import PACKAGED_WEIGHTS
from ..folder.manifest import ONNX, check_files, model_config
from ..folder.tensors import WEIGHTS, Tensors, is_trained, join, made_of, read_config, read_model, shapes

GRAPHS = Path(__file__).parents[1] / "graphs"
SIZES = "sizes.json"  # beside the packaged graphs: the configuration that they were exported with
_TOKENIZER = "tokenizer.json"


class Source(NamedTuple):
    """What an `OnnxEncoder` is made of.

    Args:
        graph: the file of a graph that reads a block of each text.
        tensors: the weights that it is to be given; None if the file holds them.
        config: of the model.
        tokenizer: the file of its tokenizer.
        made_of: the sha256 of what the vectors depend on, by name; `deltanet_sha256` among them.
    """

    graph: Path
    tensors: Tensors | None
    config: dict[str, Any]
    tokenizer: Path
    made_of: dict[str, str]


def graph_name(base_only: bool = False, int8: bool = False) -> str:
    """The file of the graph that reads a block of each text."""
    return f"step{'_base' * base_only}{'_quantized' * int8}.onnx"


def graph_files(base_only: bool = False, int8: bool = False) -> tuple[str, str]:
    """Where a model folder has such a graph: its name, and its name in folders of earlier versions."""
    return f"{ONNX}{graph_name(base_only, int8)}", f"{ONNX}model{'_base' * base_only}{'_int8' * int8}.onnx"


def packaged(base_only: bool = False, int8: bool = False) -> Source:
    """The packaged weights in the packaged graph.

    Raises:
        FileNotFoundError, ValueError: the base is missing or damaged.
    """
    base, graph = find_part(), GRAPHS / graph_name(base_only, int8)
    tensors = _needed(join(base, PACKAGED_WEIGHTS), base_only)
    made = made_of(base, PACKAGED_WEIGHTS) | {"graph": sha256(graph)}
    return Source(graph, tensors, read_config(base), base / _TOKENIZER, made)


def of_folder(folder: Path, base_only: bool = False, int8: bool = False) -> Source:
    """A folder's weights, in its own graph if it has one, else in the packaged one.

    Raises:
        FileNotFoundError: naming the file that is missing.
        ValueError: naming the file that was altered or damaged.
    """
    config, manifest = model_config(folder), check_files(folder, ["config.json", _TOKENIZER])
    name = graph_name(base_only, int8)
    for own in graph_files(base_only, int8):
        if own in manifest["sha256"] and (folder / own).is_file():
            return in_folder(folder, own)
    if shapes(config) != shapes(json.loads((GRAPHS / SIZES).read_text(encoding="utf-8"))):
        raise FileNotFoundError(
            f"{folder / ONNX / name} is missing, and the packaged graph is of other sizes: write graphs with "
            f"`lam export onnx {folder}`"
        )
    check_files(folder, [WEIGHTS])
    made = {name: value for name, value in manifest.items() if name.endswith("_sha256")}
    made |= {"graph": sha256(GRAPHS / name), "weights": manifest["sha256"][WEIGHTS]}
    return Source(GRAPHS / name, _needed(read_model(folder, config), base_only), config, folder / _TOKENIZER, made)


def in_folder(folder: Path, graph: str, checked: bool = True) -> Source:
    """A graph in a folder, which holds its weights.

    Args:
        graph: its name within the folder.
        checked: compare it with the manifest; a graph that is still being written is not in it.

    Raises:
        FileNotFoundError: naming the file that is missing.
        ValueError: naming the file that was altered or damaged.
    """
    if not (folder / graph).is_file():
        raise FileNotFoundError(f"{folder / graph} is missing: write the graphs with `lam export onnx {folder}`")
    manifest = check_files(folder, [_TOKENIZER, "config.json", *[graph] * checked])
    digest = manifest["sha256"][graph] if checked else sha256(folder / graph)
    made = {"graph": digest, "deltanet_sha256": manifest["deltanet_sha256"]}
    return Source(folder / graph, None, model_config(folder), folder / _TOKENIZER, made)


def _needed(tensors: Tensors, base_only: bool) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if not (base_only and is_trained(name))}
