# /// script
# dependencies = ["langchain-huggingface==1.2.3", "langchain-chroma==1.1.0", "lam-model[torch]"]
# ///
"""LAM in LangChain: through sentence-transformers, with a class of LAM's without torch, and passages in a store."""

import chromadb
from documents import check_hits, documents, question
from golden import TEXTS, check
from langchain_chroma import Chroma
from langchain_core.documents import Document
from langchain_huggingface import HuggingFaceEmbeddings

from lam_model.integrations.langchain import LamEmbeddings

model = HuggingFaceEmbeddings(model_name="my-lam", model_kwargs={"device": "cpu"})
check(model.embed_documents(TEXTS), 'HuggingFaceEmbeddings(model_name="my-lam")')

model = LamEmbeddings("my-lam")
check(model.embed_documents(TEXTS), 'LamEmbeddings("my-lam")')
check([model.embed_query(text) for text in TEXTS], 'LamEmbeddings("my-lam"), queries')

# Passages that know their document, as in docs/integrations.md
lam = LamEmbeddings("my-lam")
passages, vectors = lam.split_documents(
    [Document(d["text"], metadata={"source": d["id"], "title": d["title"]}) for d in documents]
)
client = chromadb.EphemeralClient()
store = Chroma("passages", lam, client=client, collection_configuration={"hnsw": {"space": "cosine"}})
client.get_collection("passages").add(
    ids=[f"{passage.metadata['source']} {passage.metadata['start_index']}" for passage in passages],
    documents=[passage.page_content for passage in passages],
    embeddings=vectors,
    metadatas=[passage.metadata for passage in passages],
)

best = {}  # of each document its best passage
for passage, distance in store.similarity_search_with_score(question, k=20):
    best.setdefault(passage.metadata["source"], (passage.page_content, 1 - distance))
hits = [(name, *hit) for name, hit in best.items()][:2]

check_hits(hits)
