"""How to distil: the numbers of a run, all that its command line can change."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def _number(default: float, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Recipe:
    """How to distil. Lengths of stages and of the warm-up are in tokens read, pads not counted."""

    stage1_tokens: int = _number(1_100_000, "tokens that each layer learns from by itself")
    stage2_tokens: int = _number(10_000_000, "tokens that all layers learn from end to end")
    stage1_lr: float = _number(4e-3, "highest learning rate of stage 1")
    stage2_lr: float = _number(5e-4, "highest learning rate of stage 2")
    warmup_tokens: int = _number(150_000, "tokens over which the learning rate rises, in each stage")
    batch_tokens: int = _number(4096, "most tokens in a batch, pads counted")
    long_share: float = _number(0.15, "share of stage 2's tokens from texts of several blocks")
    long_tokens: int = _number(2048, "longest text, longer ones are cut")
    seed: int = _number(0, "of the order of the texts")
