"""LAM in LanceDB's registry of embedding functions."""

from __future__ import annotations

from typing import Any

import numpy as np
from lancedb.embeddings import TextEmbeddingFunction, register
from pydantic import PrivateAttr

from ..runtime.onnx_encoder import OnnxEncoder


@register("lam")
class LamEmbeddings(TextEmbeddingFunction):
    """Texts to vectors: `get_registry().get("lam").create()`, where this module is imported.

    Args:
        folder, dtype, dim: as for `OnnxEncoder`.
    """

    folder: str | None = None
    dtype: str = "float32"
    dim: int | None = None
    _encoder: OnnxEncoder | None = PrivateAttr(None)

    @property
    def encoder(self) -> OnnxEncoder:
        """The `OnnxEncoder`, for `encode_passages`."""
        if self._encoder is None:
            self._encoder = OnnxEncoder(self.folder, dtype=self.dtype, dim=self.dim)
        return self._encoder

    def ndims(self) -> int:
        """The size of the vectors."""
        return self.encoder.truncate_dim or self.encoder.dimension

    def generate_embeddings(self, texts: list[str] | np.ndarray, *args: Any, **kwargs: Any) -> list[np.ndarray]:
        """Unit vectors of texts."""
        return list(self.encoder.encode(list(texts)))
