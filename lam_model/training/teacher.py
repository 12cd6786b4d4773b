"""What the base says of a text: the targets of distillation."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Targets(NamedTuple):
    """The teacher's view of a batch.

    Args:
        hidden_states: of the embeddings and of every layer, each (batch, length, hidden size).
        attention: each layer's attention output after its projection, likewise.
        mask: 1 where the student's token was read by the teacher, (batch, length).
        pooled: (batch, hidden size), unit length.
    """

    hidden_states: list[Tensor]
    attention: list[Tensor]
    mask: Tensor
    pooled: Tensor


class Teacher(nn.Module):
    """The frozen base with its softmax attention, and the pooling of its sentence-transformers folder."""

    def __init__(self, base: Path, block_size: int):
        super().__init__()
        from sentence_transformers import SentenceTransformer
        from transformers import AutoModel, AutoTokenizer

        self.bert = AutoModel.from_pretrained(base, local_files_only=True, dtype=torch.float32)
        self.tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
        self.pooling = SentenceTransformer(str(base), device="cpu", local_files_only=True)[1]
        self.block_size = block_size
        self.requires_grad_(False).eval()
        self._attention: list[Tensor] = []
        for layer in self.bert.encoder.layer:
            layer.attention.output.dense.register_forward_hook(lambda _, __, output: self._attention.append(output))

    @torch.no_grad()
    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Targets:
        """Targets for texts of any length.

        A text of more than one block is read in pieces, each as a text of its own: the piece's first and last
        tokens give way to [CLS] and [SEP], so that all others keep the positions they have for the student.
        """
        batch, length = input_ids.shape
        pieces = -(-length // self.block_size)
        ids, mask, read = input_ids, attention_mask, attention_mask
        if pieces > 1:
            pad = (0, pieces * self.block_size - length)
            ids = nn.functional.pad(ids, pad, value=self.tokenizer.pad_token_id).view(batch, pieces, -1).clone()
            mask = nn.functional.pad(mask, pad).view(batch, pieces, -1)
            lengths = mask.sum(-1, keepdim=True)
            position = torch.arange(self.block_size, device=ids.device)
            first, last = (position == 0) & (lengths > 0), (position == lengths - 1) & (position > 0)
            # What the teacher reads otherwise than the student is no target.
            cls, sep = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
            replaced = (first & (ids != cls)) | (last & (ids != sep))
            ids = ids.masked_fill(first, cls).masked_fill(last, sep)
            read = (mask * ~replaced).view(batch, -1)[:, :length]
            weights = lengths.float()
            mask = mask.index_fill(-1, ids.new_zeros(1), 1)  # no piece is empty for the softmax
            ids, mask = ids.flatten(0, 1), mask.flatten(0, 1)
        self._attention.clear()
        output = self.bert(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        pooled = self.pool(output.last_hidden_state.float(), mask)
        if pieces > 1:
            pooled = (pooled.view(batch, pieces, -1) * weights).sum(1) / weights.sum(1)

        def whole(x: Tensor) -> Tensor:  # (batch x pieces, block, size) -> (batch, length, size)
            return x.reshape(batch, -1, x.shape[-1])[:, :length]

        return Targets(
            [whole(x) for x in output.hidden_states],
            [whole(x) for x in self._attention],
            read,
            nn.functional.normalize(pooled, dim=-1),
        )

    def pool(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """The base's own pooling of (batch, length, hidden size), not normalised."""
        return self.pooling({"token_embeddings": hidden, "attention_mask": mask})["sentence_embedding"]
