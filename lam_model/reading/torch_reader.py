"""A LAM in torch as a `Reader`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..model.batching import CPU, GPU, alike
from .tokenizing import plain_tokenizer

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

END = -1  # in place of a part's number, after the last


class TorchReader:
    """Reads with the `LamModel` of a `SentenceTransformer` whose vectors are means over tokens; see `Reader`.

    The parts of a block are read at once.

    Raises:
        TypeError: there is no `LamModel`.
        ValueError: the tokens are pooled otherwise.
    """

    def __init__(self, model: SentenceTransformer) -> None:
        lam = getattr(model[0], "auto_model", None)
        if lam is None or not hasattr(lam, "forward_block"):
            raise TypeError(
                f"streams and passages need a LAM, not {type(model[0]).__name__}: load it with lam_model.load()"
            )
        if not pools_the_mean(model):
            raise ValueError("streams and passages need mean pooling: this model pools its tokens otherwise")
        self._lam = lam
        self.tokenizer = plain_tokenizer(model.tokenizer)
        self.block_size: int = lam.config.block_size
        self.dimension: int = lam.config.hidden_size
        self.weights: str | None = getattr(model, "manifest", {}).get("deltanet_sha256")

    @torch.inference_mode()
    def read(
        self, blocks: Sequence[Sequence[Sequence[int]]], states: Sequence[Tensor | None], first: bool
    ) -> tuple[list[np.ndarray], list[Tensor | None]]:
        """See `Reader`."""
        lam, device = self._lam, self._lam.device
        rows_of = [joined(parts) for parts in blocks]
        order = sorted(range(len(blocks)), key=lambda row: -len(rows_of[row][0]))
        sums: list[Any] = [None] * len(blocks)
        after: list[Tensor | None] = [None] * len(blocks)
        for group in alike([len(rows_of[row][0]) for row in order], **(CPU if device.type == "cpu" else GPU)):
            rows = order[group]
            ids, part = (
                pad_sequence(list(x), True, END).to(device) for x in zip(*map(rows_of.__getitem__, rows), strict=True)
            )
            real = part >= 0
            before = [states[row] for row in rows]
            output = lam.forward_block(
                ids.masked_fill(~real, lam.config.pad_token_id),
                real.long(),
                None if before[0] is None else torch.stack([torch.as_tensor(x, device=device) for x in before]),
                first_block=first,
                breaks=breaks_between(part),
            )
            counts = [len(blocks[row]) for row in rows]
            tokens_of = part[:, None] == torch.arange(max(counts), device=device)[:, None]
            with torch.autocast(device.type, enabled=False):
                found = (tokens_of.float() @ output.last_hidden_state.float()).cpu().numpy()
            for i, (row, count) in enumerate(zip(rows, counts, strict=True)):
                sums[row], after[row] = found[i, :count], None if output.state is None else output.state[i]
        return sums, after

    def array(self, x: Any) -> Tensor:
        """See `Reader`."""
        return torch.as_tensor(x).cpu()


def joined(parts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """The tokens of parts, and the number of each token's."""
    numbers = torch.arange(len(parts)).repeat_interleave(torch.tensor([len(part) for part in parts]))
    return torch.tensor([*chain(*parts)], dtype=torch.long), numbers


def breaks_between(part: Tensor) -> Tensor | None:
    """Where parts begin, but for the first of each row, from the number of each token's part, `END` after the last."""
    return (part >= 0) & (part.diff(dim=1, prepend=part[:, :1]) > 0) if part.max() > 0 else None


def pools_the_mean(model: SentenceTransformer) -> bool:
    """Whether a text's vector is the mean over its tokens."""
    # What it does, for its names have changed over releases: the mean of 1 and 2, without the masked 6.
    tokens, mask = torch.tensor([[[1.0], [2.0], [6.0]]]), torch.tensor([[1, 1, 0]])
    return model[1]({"token_embeddings": tokens, "attention_mask": mask})["sentence_embedding"].tolist() == [[1.5]]
