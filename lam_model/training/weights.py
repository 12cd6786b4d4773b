"""The DeltaNet layers' parameters: all that is ever trained, and all that is kept."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from ..files import replacing
from ..modeling_lam import LamModel


def trained(model: LamModel) -> dict[str, nn.Parameter]:
    """The parameters of the DeltaNet layers by their names."""
    return {name: p for name, p in model.named_parameters() if ".delta_net." in name}


def train_only_deltanet(model: LamModel) -> None:
    """Freeze everything else."""
    model.requires_grad_(False)
    for parameter in trained(model).values():
        parameter.requires_grad_(True)


def save(model: LamModel, path: Path) -> None:
    """Write the DeltaNet layers as a float16 safetensors file."""
    weights = {name: p.detach().to("cpu", torch.float16).contiguous() for name, p in trained(model).items()}
    with replacing(path) as beside:
        save_file(weights, beside, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors writes for the owner alone
