# /// script
# dependencies = ["qdrant-client[fastembed]==1.20.0", "fastembed==0.9.1", "lam-model"]
# ///
"""LAM in Qdrant: texts that fastembed embeds, without torch, and passages with their vectors."""

from documents import check_hits, documents, question
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType
from golden import TEXTS, check
from qdrant_client import QdrantClient, models

import lam_model

TextEmbedding.add_custom_model(
    model="my-lam",
    pooling=PoolingType.MEAN,
    normalization=True,
    sources=ModelSource(hf="my-lam"),
    dim=384,
    model_file="onnx/model.onnx",
)


def lam(text):
    return models.Document(text=text, model="my-lam", options={"specific_model_path": "my-lam"})


client = QdrantClient(":memory:")
cosine = models.VectorParams(size=384, distance=models.Distance.COSINE)
client.create_collection("texts", vectors_config=cosine)
client.upsert("texts", [models.PointStruct(id=i, vector=lam(text)) for i, text in enumerate(TEXTS)])
assert client.query_points("texts", query=lam(TEXTS[3]), limit=1).points[0].id == 3
points, _ = client.scroll("texts", limit=len(TEXTS), with_vectors=True)
check([point.vector for point in sorted(points, key=lambda point: point.id)], 'models.Document(text, model="my-lam")')

# Passages that know their document, as in docs/integrations.md
encoder = lam_model.OnnxEncoder("my-lam")
texts, titles = [d["text"] for d in documents], [d["title"] for d in documents]
passages = [
    {"document": document["id"], "text": document["text"][start:end], "vector": vector}
    for document, found in zip(documents, encoder.encode_passages(texts, title=titles), strict=True)
    for (start, end), vector in zip(found.offsets, found.vectors, strict=True)
]

client.create_collection("passages", vectors_config=cosine)
client.upload_collection(
    "passages",
    vectors=[passage["vector"] for passage in passages],
    payload=[{key: passage[key] for key in ("document", "text")} for passage in passages],
)

query = encoder.encode(question)
answer = client.query_points_groups("passages", group_by="document", query=query, limit=2, group_size=1)
hits = [(group.id, group.hits[0].payload["text"], group.hits[0].score) for group in answer.groups]

check_hits(hits)
