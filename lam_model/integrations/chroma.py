"""LAM as an embedding function of Chroma."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from chromadb.api.types import Documents, EmbeddingFunction, Embeddings, Space
from chromadb.utils.embedding_functions import register_embedding_function

from ..runtime.onnx_encoder import OnnxEncoder


@register_embedding_function
class LamEmbeddingFunction(EmbeddingFunction[Documents]):
    """Texts to vectors, for `create_collection(embedding_function=...)`.

    A collection remembers its embedding function: where this module is imported, `get_collection` needs none.

    Args:
        folder, dtype, dim: as for `OnnxEncoder`.

    Attributes:
        encoder: the `OnnxEncoder`, for `encode_passages`.
    """

    def __init__(self, folder: str | None = None, dtype: str = "float32", dim: int | None = None) -> None:
        self._config: dict[str, Any] = {"folder": folder, "dtype": dtype, "dim": dim}

    @cached_property
    def encoder(self) -> OnnxEncoder:
        return OnnxEncoder(**self._config)

    def __call__(self, input: Documents) -> Embeddings:
        """Unit vectors of texts."""
        return list(self.encoder.encode(input))

    @staticmethod
    def name() -> str:
        """How Chroma knows it."""
        return "lam"

    def default_space(self) -> Space:
        """The measure of a new collection."""
        return "cosine"

    def get_config(self) -> dict[str, Any]:
        """What a collection keeps."""
        return self._config

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> LamEmbeddingFunction:
        """The embedding function of a collection."""
        return LamEmbeddingFunction(**config)
