"""The LAM that training begins with."""

from __future__ import annotations

from pathlib import Path

import torch

from ..folder.tensors import read_config, start
from ..model.configuration_lam import LamConfig
from ..model.modeling_lam import LamModel


def convert(base: Path) -> LamModel:
    """A LAM with the frozen weights of a BERT sentence encoder, ready to be trained.

    Query, key, value and output projections start as those of the base's attention, the rest is neutral.

    Raises:
        FileNotFoundError, ValueError: the folder is not that of a BERT sentence encoder.
    """
    model = LamModel(LamConfig(**read_config(base)))
    model.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in start(base).items()})
    return model.eval()
