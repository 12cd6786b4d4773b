# /// script
# dependencies = ["llama-index-core==0.14.25", "llama-index-embeddings-huggingface==0.8.0", "lam-model[torch]"]
# ///
"""LAM in LlamaIndex: through sentence-transformers, with a class of LAM's without torch, and passages in an index."""

from documents import check_hits, documents, question
from golden import TEXTS, check
from llama_index.core import Document, VectorStoreIndex
from llama_index.embeddings.huggingface import HuggingFaceEmbedding

from lam_model.integrations.llama_index import LamEmbedding, LamNodeParser

model = HuggingFaceEmbedding(model_name="my-lam", device="cpu")
check(model.get_text_embedding_batch(TEXTS), 'HuggingFaceEmbedding(model_name="my-lam")')

model = LamEmbedding(folder="my-lam")
check(model.get_text_embedding_batch(TEXTS), 'LamEmbedding(folder="my-lam")')
check([model.get_query_embedding(text) for text in TEXTS], 'LamEmbedding(folder="my-lam"), queries')

# Passages that know their document, as in docs/integrations.md
lam = LamEmbedding(folder="my-lam")
index = VectorStoreIndex.from_documents(
    [Document(text=d["text"], id_=d["id"], metadata={"title": d["title"]}) for d in documents],
    transformations=[LamNodeParser(embed_model=lam)],
    embed_model=lam,
)

best = {}  # of each document its best passage
for node in index.as_retriever(similarity_top_k=20).retrieve(question):
    best.setdefault(node.node.ref_doc_id, (node.text, node.score))
hits = [(name, *hit) for name, hit in best.items()][:2]

check_hits(hits)
