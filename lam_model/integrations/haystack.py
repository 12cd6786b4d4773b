"""LAM as components of Haystack."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

from haystack import Document, component

from ..runtime.onnx_encoder import OnnxEncoder


class _Embedder:
    def __init__(self, folder: str | None = None, dtype: str = "float32", dim: int | None = None) -> None:
        self.folder, self.dtype, self.dim = folder, dtype, dim

    @cached_property
    def encoder(self) -> OnnxEncoder:
        """The `OnnxEncoder`, for `encode_passages`."""
        return OnnxEncoder(self.folder, dtype=self.dtype, dim=self.dim)

    def warm_up(self) -> None:
        """Load the model before the first run."""
        self.encoder  # noqa: B018


@component
class LamTextEmbedder(_Embedder):
    """The vector of a query.

    Args:
        folder, dtype, dim: as for `OnnxEncoder`.
    """

    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, list[float]]:
        """Embed a text."""
        return {"embedding": self.encoder.encode(text).tolist()}


@component
class LamDocumentEmbedder(_Embedder):
    """Documents with their vectors.

    Args:
        folder, dtype, dim: as for `OnnxEncoder`.
    """

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, list[Document]]:
        """Embed documents. One without text is embedded as the empty text."""
        vectors = self.encoder.encode([document.content or "" for document in documents]).tolist()
        pairs = zip(documents, vectors, strict=True)
        return {"documents": [replace(document, embedding=vector) for document, vector in pairs]}
