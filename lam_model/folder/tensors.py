"""The tensors of a LAM: their names and shapes, those of a BERT encoder to start from, and a weights file's.

Plain numpy, so that a model folder is written, checked and run where torch is not installed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from .base import base_sha256, sha256

WEIGHTS = "model.safetensors"

Tensors = dict[str, np.ndarray]

# Sizes of a LAM's configuration under their names there and in BERT's, with what BERT takes where its file has none.
_SIZES = {
    "vocab_size": ("vocab_size", 30522),
    "hidden_size": ("hidden_size", 768),
    "num_hidden_layers": ("num_hidden_layers", 12),
    "num_attention_heads": ("num_attention_heads", 12),
    "intermediate_size": ("intermediate_size", 3072),
    "hidden_act": ("hidden_act", "gelu"),
    "layer_norm_eps": ("layer_norm_eps", 1e-12),
    "type_vocab_size": ("type_vocab_size", 2),
    "pad_token_id": ("pad_token_id", 0),
    "block_size": ("max_position_embeddings", 512),
}
# LAM's and BERT's names for the modules of a layer that are taken over as they are.
_KEPT = {
    "delta_net_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm": "output.LayerNorm",
}
_CARRY = (0.7, 0.5)  # of the states of the beginning and of the block before, what a block starts from
_DECAY_BIAS = 4.0  # sigmoid(4) = 0.98: to begin with, half of what was read 35 tokens ago is still there


def read_config(base: Path) -> dict[str, Any]:
    """The configuration of a LAM made from a BERT encoder: the arguments of `LamConfig`.

    Raises:
        FileNotFoundError: the folder has no config.json.
        ValueError: the base is not an absolute-position BERT encoder.
    """
    path = base / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: name the folder of a BERT sentence encoder")
    config = json.loads(path.read_text(encoding="utf-8"))
    kind, positions = config.get("model_type"), config.get("position_embedding_type") or "absolute"
    if kind != "bert" or positions != "absolute" or config.get("is_decoder"):
        raise ValueError(
            f"{base}: the base must be a BERT encoder with absolute positions, not model_type {kind!r} with "
            f"{positions!r} positions: choose another base"
        )
    return {name: config.get(of_bert, default) for name, (of_bert, default) in _SIZES.items()}


def shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of a LAM of some configuration, by its name in the state dict."""
    size, heads, inner = config["hidden_size"], config["num_attention_heads"], config["intermediate_size"]
    found: dict[str, tuple[int, ...]] = {
        f"embeddings.{name}_embeddings.weight": (config[rows], size)
        for name, rows in (("word", "vocab_size"), ("position", "block_size"), ("token_type", "type_vocab_size"))
    }
    for norm in ("embeddings.LayerNorm", *_in_layers(config, "delta_net_norm", "norm")):
        found |= {f"{norm}.weight": (size,), f"{norm}.bias": (size,)}
    projections = {
        "delta_net.in_proj": (3 * size + 4 * heads, size),
        "delta_net.out_proj": (size, size),
        "up": (inner, size),
        "down": (size, inner),
    }
    for name, shape in projections.items():
        for dense in _in_layers(config, name):
            found |= {f"{dense}.weight": shape, f"{dense}.bias": shape[:1]}
    found |= {name: (heads,) for name in _in_layers(config, "delta_net.scale")}
    return found | {name: (2, heads) for name in _in_layers(config, "delta_net.carry")}


def _in_layers(config: dict[str, Any], *names: str) -> list[str]:
    return [f"layers.{i}.{name}" for i in range(config["num_hidden_layers"]) for name in names]


def is_trained(name: str) -> bool:
    """Whether a tensor belongs to a DeltaNet layer: all else is the base's."""
    return ".delta_net." in name


def start(base: Path) -> Tensors:
    """The tensors of a LAM with the base's frozen weights, ready to be trained.

    Query, key, value and output projections start as those of the base's attention, the rest is neutral.

    Raises:
        FileNotFoundError, ValueError: naming the file that is missing, damaged or not of a BERT sentence encoder.
    """
    config, bert = read_config(base), _Bert(base)
    tensors = _frozen(config, bert)
    for i in range(config["num_hidden_layers"]):
        lam, attention = f"layers.{i}.delta_net.", f"encoder.layer.{i}.attention."
        for kind in ("weight", "bias"):
            qkv = [bert[f"{attention}self.{name}.{kind}"] for name in ("query", "key", "value")]
            gates = np.zeros((4 * config["num_attention_heads"], *qkv[0].shape[1:]), np.float32)
            if kind == "bias":
                gates[len(gates) // 2 :] = _DECAY_BIAS
            tensors[f"{lam}in_proj.{kind}"] = np.concatenate([*qkv, gates])
            tensors[f"{lam}out_proj.{kind}"] = bert[f"{attention}output.dense.{kind}"]
        tensors[f"{lam}scale"] = np.ones(config["num_attention_heads"], np.float32)
        tensors[f"{lam}carry"] = np.repeat(np.array(_CARRY, np.float32)[:, None], config["num_attention_heads"], 1)
    return _checked(base / WEIGHTS, tensors, shapes(config))


def join(base: Path, weights: Path) -> Tensors:
    """The tensors of a whole LAM: the base's, and those of a file of DeltaNet weights, in float32.

    Raises:
        FileNotFoundError, ValueError: naming the file that is missing, damaged or does not fit the other.
    """
    config = read_config(base)
    trained = {name: shape for name, shape in shapes(config).items() if is_trained(name)}
    frozen = {name: shape for name, shape in shapes(config).items() if not is_trained(name)}
    return _checked(base / WEIGHTS, _frozen(config, _Bert(base)), frozen) | read_weights(weights, trained)


def read_model(folder: Path, config: dict[str, Any]) -> Tensors:
    """The tensors of a model folder: those that its configuration asks for, float32 and finite.

    Raises:
        FileNotFoundError, ValueError: naming the file, the tensor and the fault.
    """
    path = folder / WEIGHTS
    tensors = _checked(path, _read(path), shapes(config))
    if wrong := [name for name, tensor in tensors.items() if tensor.dtype != np.float32]:
        raise ValueError(f"{path}: {wrong[0]} is {tensors[wrong[0]].dtype}, not float32: save it so")
    return tensors


def read_weights(path: Path, expected: dict[str, tuple[int, ...]]) -> Tensors:
    """The tensors of a safetensors file that must hold exactly those of some shapes, as finite float32.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: naming the file, the tensor and the fault.
    """
    tensors = _checked(path, _read(path), expected)
    return {name: tensor.astype(np.float32, copy=False) for name, tensor in tensors.items()}


def made_of(base: Path, weights: Path) -> dict[str, str]:
    """What a manifest says of where a model's tensors come from: the sha256 of both files."""
    return {"base_sha256": base_sha256(base), "deltanet_sha256": sha256(weights)}


class _Bert(dict[str, np.ndarray]):
    """A BERT encoder's tensors by their names in `BertModel`."""

    def __init__(self, base: Path) -> None:
        self._path = base / WEIGHTS
        super().__init__({name.removeprefix("bert."): tensor for name, tensor in _read(self._path).items()})

    def __missing__(self, name: str) -> np.ndarray:
        raise ValueError(f"{self._path} has no tensor {name!r}: name the folder of a BERT sentence encoder")


def _frozen(config: dict[str, Any], bert: _Bert) -> Tensors:
    tensors = {name: bert[name] for name in shapes(config) if name.startswith("embeddings.")}
    for i in range(config["num_hidden_layers"]):
        for ours, theirs in _KEPT.items():
            for kind in ("weight", "bias"):
                tensors[f"layers.{i}.{ours}.{kind}"] = bert[f"encoder.layer.{i}.{theirs}.{kind}"]
    return {name: tensor.astype(np.float32, copy=False) for name, tensor in tensors.items()}


def _read(path: Path) -> Tensors:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: fetch or build the model again")
    try:
        with safe_open(path, "numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, TypeError) as error:  # TypeError: of a type that numpy does not have
        raise ValueError(f"{path} is damaged ({error}): fetch or build the model again") from error


def _checked(path: Path, tensors: Tensors, expected: dict[str, tuple[int, ...]]) -> Tensors:
    faults = [f"{name} is missing" for name in expected.keys() - tensors.keys()]
    faults += [f"{name} is not LAM's" for name in tensors.keys() - expected.keys()]
    for name in expected.keys() & tensors.keys():
        tensor = tensors[name]
        if tensor.shape != expected[name]:
            faults.append(f"{name} is {tensor.shape}, not {expected[name]}")
        elif not np.issubdtype(tensor.dtype, np.floating):
            faults.append(f"{name} is {tensor.dtype}, not floating point")
        elif not np.isfinite(tensor).all():
            faults.append(f"{name} is not finite")
    if faults:
        raise ValueError(f"{path} does not fit: {'; '.join(sorted(faults)[:3])}: fetch or build the model again")
    return tensors
