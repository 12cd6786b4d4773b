# /// script
# dependencies = ["haystack-ai==3.4.1", "sentence-transformers-haystack==2.0.0", "lam-model[torch]"]
# ///
"""LAM in Haystack: through sentence-transformers, and with components of LAM's without torch."""

from golden import TEXTS, check
from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack_integrations.components.embedders.sentence_transformers import (
    SentenceTransformersDocumentEmbedder,
    SentenceTransformersTextEmbedder,
)

from lam_model.integrations.haystack import LamDocumentEmbedder, LamTextEmbedder

texts = [Document(content=text) for text in TEXTS]


def vectors(document_embedder):
    document_embedder.warm_up()
    return [document.embedding for document in document_embedder.run(texts)["documents"]]


check(
    vectors(SentenceTransformersDocumentEmbedder(model="my-lam")),
    'SentenceTransformersDocumentEmbedder(model="my-lam")',
)
embedder = SentenceTransformersTextEmbedder(model="my-lam", progress_bar=False)
embedder.warm_up()
check([embedder.run(text)["embedding"] for text in TEXTS], 'SentenceTransformersTextEmbedder(model="my-lam")')

check(vectors(LamDocumentEmbedder("my-lam")), 'LamDocumentEmbedder("my-lam")')
embedder = LamTextEmbedder("my-lam")
check([embedder.run(text)["embedding"] for text in TEXTS], 'LamTextEmbedder("my-lam")')

# In a pipeline, written to YAML and read again
store = InMemoryDocumentStore(embedding_similarity_function="cosine")
store.write_documents(LamDocumentEmbedder("my-lam").run(texts)["documents"])
pipeline = Pipeline()
pipeline.add_component("query", LamTextEmbedder("my-lam"))
pipeline.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=1))
pipeline.connect("query.embedding", "retriever.query_embedding")

pipeline = Pipeline.loads(pipeline.dumps(), allowed_modules=["lam_model"])
found = pipeline.run({"query": {"text": TEXTS[3]}})["retriever"]["documents"]
assert found[0].content == TEXTS[3]
