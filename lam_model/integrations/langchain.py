"""LAM in LangChain: embeddings, and documents in passages that know their document."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings

from ..reading.cutting import PASSAGE_TOKENS
from ..runtime.onnx_encoder import OnnxEncoder


class LamEmbeddings(Embeddings):
    """Texts to vectors, for any vector store.

    Args:
        folder, dtype, dim: as for `OnnxEncoder`.

    Attributes:
        encoder: the `OnnxEncoder`.
    """

    def __init__(self, folder: str | None = None, dtype: str = "float32", dim: int | None = None) -> None:
        self.encoder = OnnxEncoder(folder, dtype=dtype, dim=dim)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Unit vectors of texts."""
        return self.encoder.encode(texts).tolist()

    def embed_query(self, text: str) -> list[float]:
        """The unit vector of a text."""
        return self.encoder.encode(text).tolist()

    def split_documents(
        self, documents: Sequence[Document], size: int = PASSAGE_TOKENS
    ) -> tuple[list[Document], list[list[float]]]:
        """Cut documents into passages, and embed each in its document.

        Args:
            documents: a `title` in the metadata is read before the text.
            size: most tokens of a passage.

        Returns:
            The passages, with their document's metadata and `start_index`, the character where they begin; and their
            unit vectors. Give both to the vector store: it would embed a passage alone.
        """
        texts = [document.page_content for document in documents]
        titles = [document.metadata.get("title") for document in documents]
        passages: list[Document] = []
        vectors: list[list[float]] = []
        for document, found in zip(documents, self.encoder.encode_passages(texts, size, title=titles), strict=True):
            for start, end in found.offsets.tolist():
                metadata = {**document.metadata, "start_index": start}
                passages.append(Document(document.page_content[start:end], metadata=metadata))
            vectors += found.vectors.tolist()
        return passages, vectors
