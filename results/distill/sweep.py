"""Short runs of distillation that no option of `lam train distill` makes: momenta, averages, similarity, kinds of text.

As sweep.sh, of which each costs the same and begins alike: `python results/distill/sweep.py`, from the repository's
root; DATA is beside it. About a quarter of an hour on two cores.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lam_model.folder.base import find_base
from lam_model.training import distill
from lam_model.training.data import read_guard, read_texts
from lam_model.training.recipe import Recipe

RESULTS = Path(__file__).parent / "sweep"
TRAIN = Path("DATA/train")
RECIPE = Recipe(stage1_tokens=100_000, stage2_tokens=300_000, warmup_tokens=40_000, evaluate_tokens=100_000)
SENTENCE, PARAGRAPH, LONG_PARAGRAPH, SEVERAL_BLOCKS = 80, 300, 1_200, 3_072  # the fewest characters of each


class Variant(distill.Run):
    """A run that differs in one thing.

    Args:
        betas: AdamW's.
        ema: decay, a step, of the mean of weights that is evaluated in place of the last.
        left_out: texts of at least and of less than so many characters are not trained on; they are still held out.
    """

    def __init__(
        self,
        *args: Any,
        betas: tuple[float, float] | None = None,
        ema: float | None = None,
        left_out: tuple[int, int] | None = None,
    ) -> None:
        self.betas, self.ema, self.left_out = betas, ema, left_out
        super().__init__(*args)

    def _start_stage(self) -> None:
        if self.left_out:
            chars = np.asarray(pc.utf8_length(self.texts.data.column("text")))
            kept = (chars < self.left_out[0]) | (chars >= self.left_out[1])
            self.texts = self.texts.select(np.flatnonzero(kept)).flatten_indices()
        super()._start_stage()
        if self.betas:
            self.optimizer.param_groups[0]["betas"] = self.betas
        if self.ema:
            self.averaged = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(self.ema))

    def _step(self, *args: Any) -> dict[str, torch.Tensor]:
        losses = super()._step(*args)
        if self.ema:
            self.averaged.update_parameters(self.model)
        return losses

    def _evaluate(self) -> None:
        model = self.model
        if self.ema:
            self.model = self.averaged.module
        super()._evaluate()
        self.model = model


def main() -> None:
    base = find_base()
    texts = read_texts(str(TRAIN / f"{name}.parquet") for name in ("text", "pairs", "long"))
    guard = read_guard(Path("DATA/eval_exclude_normalised.txt.xz"))
    default = distill.SIMILARITY_WEIGHT
    for name, similarity, changed in (
        ("betas-0.9-0.99", default, {"betas": (0.9, 0.99)}),
        ("betas-0.8-0.95", default, {"betas": (0.8, 0.95)}),
        ("mean-of-weights-0.9", default, {"ema": 0.9}),
        ("similarity-weight-0", 0.0, {}),
        ("similarity-weight-100", 100.0, {}),
        ("no-queries", default, {"left_out": (0, SENTENCE)}),
        ("no-sentences", default, {"left_out": (SENTENCE, PARAGRAPH)}),
        ("no-paragraphs", default, {"left_out": (PARAGRAPH, SEVERAL_BLOCKS)}),
        ("no-long-paragraphs", default, {"left_out": (LONG_PARAGRAPH, SEVERAL_BLOCKS)}),
    ):
        distill.SIMILARITY_WEIGHT = similarity
        out = Path("runs/sweep") / name
        Variant(base, texts, out, RECIPE, guard, **changed).train()
        shutil.copy(out / "log.jsonl", RESULTS / f"{name}.jsonl")


if __name__ == "__main__":
    main()
