"""Distillation: the DeltaNet layers learn to do what the base's softmax attention does.

Stage 1 gives each layer the teacher's own input of that layer and fits the teacher's attention output, all
layers at once. Stage 2 runs the student end to end and fits all hidden states and the pooled vector. Only the
DeltaNet layers are trained.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from ..files import replacing
from ..folder.base import sha256
from ..model.modeling_lam import GatedDeltaNet, LamModel
from ..progress import progress
from . import data, processes
from .held_out import HeldOut
from .plot import plot
from .processes import Share, summed, together
from .recipe import Recipe
from .start import convert
from .teacher import Targets, Teacher
from .weights import read, save, train_only_deltanet, trained

if TYPE_CHECKING:
    from datasets import Dataset

SIMILARITY_WEIGHT = 10.0  # of the squared error of the in-batch cosine matrices
LOG_STEPS = 10
CHECKPOINT_SECONDS = 240


def normalised_error(output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Squared error over the variance of the target, over real tokens: 1 is the error of predicting their mean."""
    # Sums weighted by the mask: picking the real tokens out copies everything, three times as slow.
    weight = mask.flatten().float()
    output, target = output.flatten(0, 1).float(), target.flatten(0, 1).float()
    mean = summed(weight @ target) / summed(weight.sum())
    error, variance = (weight @ (output - target).square().sum(-1)), (weight @ (target - mean).square().sum(-1))
    return summed(error) / summed(variance)


def attention_loss(model: LamModel, targets: Targets, mask: Tensor) -> Tensor:
    """Stage 1: the sum over layers of the error of the attention output, each from the teacher's input."""
    losses = []
    nets = [module for module in model.modules() if isinstance(module, GatedDeltaNet)]
    for net, x, target in zip(nets, targets.hidden_states, targets.attention, strict=False):
        output, _ = net(x, mask, None)
        losses.append(normalised_error(output, target, targets.mask))
    return torch.stack(losses).sum()


def end_to_end_loss(
    model: LamModel,
    teacher: Teacher,
    ids: Tensor,
    mask: Tensor,
    targets: Targets,
    share: Share,
    pooled_weight: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Stage 2: hidden states, pooled vectors, and the batch's similarities to one another."""
    output = model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    pairs = zip(output.hidden_states[1:], targets.hidden_states[1:], strict=True)
    hidden = torch.stack([normalised_error(x, target, targets.mask) for x, target in pairs]).mean()
    pooled = together(F.normalize(teacher.pool(output.last_hidden_state.float(), mask), dim=-1), share)
    wanted = together(targets.pooled, share)
    distance = 1 - (pooled * wanted).sum(-1).mean()
    similarity = F.mse_loss(pooled @ pooled.T, wanted @ wanted.T)
    loss = hidden + pooled_weight * distance + SIMILARITY_WEIGHT * similarity
    return loss, {"hidden": hidden, "distance": distance, "similarity": similarity}


def autocast_dtype(device: torch.device, dtype: str | None = None) -> torch.dtype:
    """What the dense layers run in: as named, else bfloat16 where the hardware multiplies it fast."""
    if dtype:
        return getattr(torch, dtype)
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported()
    else:
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32


def learning_rate(peak: float, tokens: int, total: int, warmup: int) -> float:
    """Linear warm-up, then a cosine down to zero."""
    warm = min(1.0, (tokens + 1) / warmup) if warmup else 1.0
    return peak * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, tokens / total)))


class Run:
    """One distillation in a folder: `checkpoint.pt` to go on from, `log.jsonl`, `deltanet.safetensors`.

    Args:
        base: folder of the teacher, a BERT sentence encoder.
        texts: rows as from `data.read_texts`.
        out: the run's folder; a run that was begun there goes on.
        guard: normalised texts that are never trained on.
        weights: DeltaNet weights to start from instead of the base's projections.
        source: versions, data and command, for `run.json`.
    """

    def __init__(
        self,
        base: Path,
        texts: Dataset,
        out: Path,
        recipe: Recipe,
        guard: frozenset[str] = frozenset(),
        weights: Path | None = None,
        device: str | None = None,
        dtype: str | None = None,
        source: dict[str, Any] | None = None,
    ) -> None:
        self.source = source or {}
        self.recipe, self.out, self.texts, self.guard = recipe, out, texts, guard
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.dtype = autocast_dtype(self.device, dtype)
        self.base_weights = base / "model.safetensors"
        self.model = convert(base)
        if weights:
            self._load_weights(read(weights))
        train_only_deltanet(self.model.to(self.device))
        self.teacher = Teacher(base, self.model.config.block_size).to(self.device)
        self.held_out = HeldOut(self.teacher, texts, guard)
        self.stage, self.step, self.seconds = 1, 0, 0.0
        self.log: list[dict[str, float]] = []
        self._start_stage()
        if (checkpoint := out / "checkpoint.pt").exists():
            self._restore(torch.load(checkpoint, map_location=self.device, weights_only=True))
        out.mkdir(parents=True, exist_ok=True)

    def _start_stage(self) -> None:
        self.tokens = 0
        self.optimizer = torch.optim.AdamW(trained(self.model).values(), betas=(0.9, 0.95), weight_decay=0.0)
        self.batches = data.Batches(
            self.texts,
            self.teacher.tokenizer,
            self.model.config.block_size,
            tokens=self.recipe.batch_tokens,
            long_share=self.recipe.long_share if self.stage == 2 else 0.0,
            long_tokens=self.recipe.long_tokens,
            phrase_share=self.recipe.phrase_share,
            repeat_share=self.recipe.repeat_share,
            guard=self.guard | self.held_out.guard,
            seed=self.recipe.seed + self.stage,
        )

    def train(self) -> None:
        """Both stages to their end, with checkpoints; then the weights, the log and the plot are written."""
        for stage, total, peak in (
            (1, self.recipe.stage1_tokens, self.recipe.stage1_lr),
            (2, self.recipe.stage2_tokens, self.recipe.stage2_lr),
        ):
            if stage < self.stage:
                continue
            if stage > self.stage:
                self.stage = stage
                self._start_stage()
            self._train_stage(total, peak)
        if not self.log or "cosine" not in self.log[-1]:
            self._evaluate()
        if processes.index() == 0:
            self._checkpoint()
            self.save()

    def _train_stage(self, total: int, peak: float) -> None:
        bar = progress(total=total, initial=self.tokens, unit="tok", unit_scale=True, desc=f"stage {self.stage}")
        saved = time.monotonic()
        for ids, mask in self.batches:
            if self.tokens >= total:
                break
            begun = time.monotonic()
            lr = learning_rate(peak, self.tokens, total, self.recipe.warmup_tokens)
            losses = self._step(ids.to(self.device), mask.to(self.device), lr)
            read = int(mask.sum())
            every = self.recipe.evaluate_tokens
            due = self.tokens // every < (self.tokens + read) // every
            self.tokens += read
            self.step += 1
            self.seconds += time.monotonic() - begun
            bar.update(read)
            if self.step % LOG_STEPS == 0:
                rounded = {name: round(float(loss), 6) for name, loss in losses.items()}
                self._record(lr=lr, **rounded)
                bar.set_postfix(rounded)
            if due:
                self._evaluate()
            if processes.index() == 0 and time.monotonic() - saved > CHECKPOINT_SECONDS:
                self._checkpoint()
                saved = time.monotonic()
        bar.close()

    def _step(self, ids: Tensor, mask: Tensor, lr: float) -> dict[str, Tensor]:
        autocast = torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)
        share = processes.share(len(ids))
        ids, mask = ids[share.read], mask[share.read]
        with autocast, self._block_size_for(ids.shape[1]):
            targets = self.teacher(ids, mask)
            if not share.rows:
                targets = targets._replace(mask=torch.zeros_like(targets.mask))
            if self.stage == 1:
                loss = attention_loss(self.model, targets, mask)
                parts = {"attention": loss / len(self.model.layers)}
            else:
                weight = self.recipe.pooled_weight
                loss, parts = end_to_end_loss(self.model, self.teacher, ids, mask, targets, share, weight)
        loss.backward()
        parameters = list(trained(self.model).values())
        processes.add_gradients(parameters)
        norm = nn.utils.clip_grad_norm_(parameters, 1.0, error_if_nonfinite=True)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {"loss": loss.detach(), "grad_norm": norm, **{name: x.detach() for name, x in parts.items()}}

    @contextmanager
    def _block_size_for(self, length: int) -> Iterator[None]:
        """A random block size for texts of several blocks, so that the state is carried more often."""
        whole = self.model.config.block_size
        if length > whole:
            halvings = np.random.default_rng([self.recipe.seed, self.step]).integers(self.recipe.block_halvings + 1)
            self.model.config.block_size = self.teacher.block_size = whole >> int(halvings)
        try:
            yield
        finally:
            self.model.config.block_size = self.teacher.block_size = whole

    def _evaluate(self) -> None:
        scores = processes.by_first(lambda: self.held_out.score(self.model))
        self._record(**scores)
        tqdm.write(f"step {self.step}: " + ", ".join(f"{name} {score:.4f}" for name, score in scores.items()))

    def _record(self, **values: float) -> None:
        where = {"stage": self.stage, "step": self.step, "tokens": self.tokens, "seconds": round(self.seconds, 1)}
        self.log.append({**where, **values})

    def _checkpoint(self) -> None:
        """Write all that an exact resume needs, beside the old checkpoint, then take its place."""
        state = {
            "recipe": asdict(self.recipe),
            "weights": {name: p.detach() for name, p in trained(self.model).items()},
            "optimizer": self.optimizer.state_dict(),
            "position": asdict(self.batches.position),
            "progress": [self.stage, self.step, self.tokens, self.seconds],
            "log": self.log,
        }
        with replacing(self.out / "checkpoint.pt") as beside:
            torch.save(state, beside)
        self._write_log()

    def _restore(self, state: dict) -> None:
        if (recipe := Recipe(**state["recipe"])) != self.recipe:
            raise ValueError(
                f"{self.out} holds a run of another recipe ({recipe}): go on with that, or take another folder"
            )
        self.stage, self.step, tokens, self.seconds = state["progress"]
        self._start_stage()
        self.tokens = tokens
        self._load_weights(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.batches.position = data.Position(**state["position"])
        self.log = state["log"]

    def _load_weights(self, weights: dict[str, Tensor]) -> None:
        parameters = trained(self.model)
        if {name: x.shape for name, x in weights.items()} != {name: p.shape for name, p in parameters.items()}:
            raise ValueError("the DeltaNet weights are those of another base: name the base that they were trained for")
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(weights[name])

    def _write_log(self) -> None:
        with replacing(self.out / "log.jsonl") as beside:
            beside.write_text("".join(json.dumps(row) + "\n" for row in self.log))

    def save(self) -> None:
        """Write `deltanet.safetensors` (float16), `run.json` and `loss.png`."""
        save(self.model, self.out / "deltanet.safetensors")
        summary = {
            **self.source,
            "recipe": asdict(self.recipe),
            "base_sha256": sha256(self.base_weights),
            "steps": self.step,
            "seconds": round(self.seconds),
            "threads": torch.get_num_threads(),
            "device": self.device.type,
            "dtype": str(self.dtype).removeprefix("torch."),
            "guarded": self.batches.guarded,
            "held_out": self.batches.held_out,
            "final": self.log[-1],
        }
        with replacing(self.out / "run.json") as beside:
            beside.write_text(json.dumps(summary, indent=1) + "\n")
        plot(self.log, self.out / "loss.png")
