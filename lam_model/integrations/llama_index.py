"""LAM in LlamaIndex: an embedding model, and a node parser whose passages know their document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.node_parser import NodeParser
from llama_index.core.node_parser.node_utils import build_nodes_from_splits
from llama_index.core.schema import BaseNode, MetadataMode

from ..reading.cutting import PASSAGE_TOKENS
from ..runtime.onnx_encoder import OnnxEncoder


class LamEmbedding(BaseEmbedding):
    """Texts to vectors.

    Args:
        folder, dtype, dim: as for `OnnxEncoder`.
    """

    model_name: str = "lam"
    folder: str | None = None
    dtype: str = "float32"
    dim: int | None = None
    _encoder: OnnxEncoder = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Load the model."""
        super().model_post_init(context)
        self._encoder = OnnxEncoder(self.folder, dtype=self.dtype, dim=self.dim)

    @property
    def encoder(self) -> OnnxEncoder:
        """The `OnnxEncoder`."""
        return self._encoder

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._encoder.encode(texts).tolist()

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._encoder.encode(text).tolist()

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


class LamNodeParser(NodeParser):
    """Documents to passages with their vectors, which an index keeps: each was read in its document.

    Args:
        embed_model: the model, which also embeds the queries.
        size: most tokens of a passage.
    """

    embed_model: LamEmbedding
    size: int = PASSAGE_TOKENS

    def _parse_nodes(self, nodes: Sequence[BaseNode], show_progress: bool = False, **kwargs: Any) -> list[BaseNode]:
        texts = [node.get_content(MetadataMode.NONE) for node in nodes]
        titles = [node.metadata.get("title") for node in nodes]
        passages: list[BaseNode] = []
        found = self.embed_model.encoder.encode_passages(texts, self.size, title=titles)
        for node, text, one in zip(nodes, texts, found, strict=True):
            some = build_nodes_from_splits([text[start:end] for start, end in one.offsets], node, id_func=self.id_func)
            for passage, vector in zip(some, one.vectors.tolist(), strict=True):
                passage.embedding = vector
            passages += some
        return passages
