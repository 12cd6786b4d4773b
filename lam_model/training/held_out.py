"""How close a LAM is to its teacher on texts that no run is ever trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from .data import held_out_texts, normalise

if TYPE_CHECKING:
    from datasets import Dataset

    from ..model.modeling_lam import LamModel
    from .teacher import Teacher

TEXTS, TOKENS = 500, 256  # texts are cut at so many tokens, as the base does
LONG_TEXTS, LONG_TOKENS = 16, 8192
_CHARS_PER_TOKEN = 6


class HeldOut:
    """Texts, and the teacher's vectors of them.

    A long text's vector is the token-weighted mean of the teacher's over pieces of a block less its two
    special tokens.
    """

    def __init__(self, teacher: Teacher, texts: Dataset, guard: frozenset[str]):
        self.teacher = teacher
        short = held_out_texts(texts, guard, TEXTS)
        self.guard = frozenset(map(normalise, short))  # a phrase of another text may be one of them
        self.short = self._tokens(short, TOKENS)
        if not self.short:
            raise ValueError("none of the data's texts is held out to measure with: give more data")
        long_chars = 2 * _CHARS_PER_TOKEN * teacher.block_size
        self.long = self._tokens(held_out_texts(texts, guard, LONG_TEXTS, long_chars), LONG_TOKENS)
        self.short_targets = torch.cat([self._target(ids) for ids in self.short])
        self.long_targets = [self._target(ids) for ids in self.long]

    def _tokens(self, texts: list[str], limit: int) -> list[list[int]]:
        if not texts:
            return []
        tokenizer = self.teacher.tokenizer
        return [ids[: limit - 2] for ids in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]]

    def _special(self, ids: list[int]) -> Tensor:
        tokenizer = self.teacher.tokenizer
        device = next(self.teacher.parameters()).device
        return torch.tensor([[tokenizer.cls_token_id, *ids, tokenizer.sep_token_id]], device=device)

    @torch.no_grad()
    def _target(self, ids: list[int]) -> Tensor:
        size = self.teacher.block_size - 2
        pieces = [self._special(ids[i : i + size]) for i in range(0, max(1, len(ids)), size)]
        vectors = [self.teacher(piece, torch.ones_like(piece)).pooled * piece.shape[1] for piece in pieces]
        return F.normalize(torch.cat(vectors).sum(0, keepdim=True), dim=-1)

    @torch.no_grad()
    def score(self, model: LamModel) -> dict[str, float]:
        """Mean cosine to the teacher, that of the worst twentieth, and the mean on long texts."""

        def cosine(ids: list[int], target: Tensor) -> Tensor:
            row = self._special(ids)
            mask = torch.ones_like(row)
            pooled = self.teacher.pool(model(input_ids=row, attention_mask=mask).last_hidden_state.float(), mask)
            return F.cosine_similarity(pooled, target)

        short = torch.cat([cosine(ids, t[None]) for ids, t in zip(self.short, self.short_targets, strict=True)])
        scores = {"cosine": short.mean(), "worst_5_percent": short.sort().values[: max(1, len(short) // 20)].mean()}
        if self.long:
            long = [cosine(ids, target) for ids, target in zip(self.long, self.long_targets, strict=True)]
            scores["long_cosine"] = torch.cat(long).mean()
        return {name: round(float(score), 5) for name, score in scores.items()}
