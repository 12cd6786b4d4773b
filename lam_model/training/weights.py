"""The DeltaNet layers' parameters: all that is ever trained, and all that is kept."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from ..files import replacing
from ..model.modeling_lam import LamModel


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
    _write({name: p.detach().cpu() for name, p in trained(model).items()}, path)


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file.

    Raises:
        FileNotFoundError, ValueError: it is missing or damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: give a safetensors file of DeltaNet weights")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}): give another file of DeltaNet weights") from error


def average(path: Path, other: Path, share: float, out: Path) -> None:
    """Write the mean of two weights files, of which the first counts for `share`.

    Between tuned weights and those that they started from, it keeps most of what was learned and gives back more of
    what was lost (Wortsman et al., "Robust fine-tuning of zero-shot models", 2022, section 3).

    Raises:
        FileNotFoundError, ValueError: a file is missing, damaged or of another base, or `share` is not 0 to 1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share}: it must be from 0 to 1")
    one, two = read(path), read(other)
    if {name: x.shape for name, x in one.items()} != {name: x.shape for name, x in two.items()}:
        raise ValueError(f"{path} and {other} are of different bases: only weights of one base have a mean")
    _write({name: share * x.float() + (1 - share) * two[name].float() for name, x in one.items()}, out)


def _write(weights: dict[str, Tensor], path: Path) -> None:
    half = {name: x.to(torch.float16).contiguous() for name, x in weights.items()}
    with replacing(path) as beside:  # not `save_file`, whose errors are its own, and whose file is for the owner alone
        beside.write_bytes(to_bytes(half, metadata={"format": "pt"}))
