"""LAM on ONNX Runtime as the one module of a `SentenceTransformer`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

try:
    from sentence_transformers.base.modules import Module
except ImportError:  # before sentence-transformers 6
    from sentence_transformers.models import Module
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer

from .onnx_encoder import OnnxEncoder


class OnnxModule(Module):
    """Reads texts and gives unit vectors: the graph pools and normalises.

    Args:
        folder, dtype, base_only: as for `OnnxEncoder`.
    """

    def __init__(self, folder: Path, dtype: str, base_only: bool) -> None:
        super().__init__()
        self.encoder = OnnxEncoder(folder, dtype=dtype, base_only=base_only)
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.max_seq_length: int | None = self.tokenizer.model_max_length
        # In place of weights: what tells this module's `state_dict` from another's.
        self.register_buffer("key", torch.tensor(list(bytes.fromhex(self.encoder.key)), dtype=torch.uint8))

    def preprocess(self, inputs: Sequence[str], prompt: str | None = None, **kwargs: Any) -> dict[str, Tensor]:
        """`input_ids` and `attention_mask`, each (texts, longest); `kwargs` are other modules' and have no effect."""
        rows = self.encoder.tokenize([(prompt or "") + text for text in inputs], self.max_seq_length)
        ids = pad_sequence(list(map(torch.tensor, rows)), batch_first=True, padding_value=self.tokenizer.pad_token_id)
        lengths = torch.tensor(list(map(len, rows)))
        return {"input_ids": ids, "attention_mask": (torch.arange(ids.shape[1]) < lengths[:, None]).long()}

    tokenize = preprocess  # its name before sentence-transformers 6

    def forward(self, features: dict[str, Tensor], **kwargs: Any) -> dict[str, Tensor]:
        """Adds `sentence_embedding`, (texts, dimension)."""
        ids, mask = (features[name].cpu().numpy() for name in ("input_ids", "attention_mask"))
        features["sentence_embedding"] = torch.from_numpy(self.encoder.embed(ids, mask))
        return features

    def get_embedding_dimension(self) -> int:
        return self.encoder.dimension

    get_sentence_embedding_dimension = get_embedding_dimension  # its name before sentence-transformers 6

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("a LAM on ONNX Runtime cannot be saved: copy its model folder, or `lam build` one")
