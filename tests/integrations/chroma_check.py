# /// script
# dependencies = ["chromadb==1.5.9", "lam-model[torch]"]
# ///
"""LAM in Chroma: through sentence-transformers, with a class of LAM's without torch, and passages in a collection."""

import chromadb
from chromadb.utils.embedding_functions import SentenceTransformerEmbeddingFunction
from documents import check_hits, documents, question
from golden import TEXTS, check

from lam_model.integrations.chroma import LamEmbeddingFunction

client = chromadb.EphemeralClient()


def collection_with(function):
    collection = client.create_collection(function.name(), embedding_function=function)
    collection.add(ids=[str(i) for i in range(len(TEXTS))], documents=TEXTS)
    return collection.get(include=["embeddings"])["embeddings"]


function = SentenceTransformerEmbeddingFunction("my-lam")
check(collection_with(function), 'SentenceTransformerEmbeddingFunction("my-lam")')

function = LamEmbeddingFunction("my-lam")
check(collection_with(function), 'LamEmbeddingFunction("my-lam")')

found = client.get_collection("lam").query(query_texts=TEXTS[3], n_results=1)  # by what the collection remembers
assert found["ids"] == [["3"]]

# Passages that know their document, as in docs/integrations.md
lam = LamEmbeddingFunction("my-lam")
texts, titles = [d["text"] for d in documents], [d["title"] for d in documents]
passages = [
    {"document": document["id"], "text": document["text"][start:end], "vector": vector}
    for document, found in zip(documents, lam.encoder.encode_passages(texts, title=titles), strict=True)
    for (start, end), vector in zip(found.offsets, found.vectors, strict=True)
]

collection = client.create_collection("passages", embedding_function=lam)
collection.add(
    ids=[str(i) for i in range(len(passages))],
    documents=[passage["text"] for passage in passages],
    embeddings=[passage["vector"] for passage in passages],
    metadatas=[{"document": passage["document"]} for passage in passages],
)

answer = collection.query(query_texts=question, n_results=20)
best = {}  # of each document its best passage
for i, metadata in enumerate(answer["metadatas"][0]):
    best.setdefault(metadata["document"], (answer["documents"][0][i], 1 - answer["distances"][0][i]))
hits = [(name, *hit) for name, hit in best.items()][:2]

check_hits(hits)
