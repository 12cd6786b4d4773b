# /// script
# dependencies = ["chonkie==1.7.0", "lam-model[torch]"]
# ///
"""LAM in chonkie: vectors of texts, and chunks that have read the whole text."""

import numpy as np
from chonkie import LateChunker, SentenceTransformerEmbeddings
from golden import TEXTS, check

import lam_model

embeddings = SentenceTransformerEmbeddings("my-lam")
check(embeddings.embed_batch(TEXTS), 'SentenceTransformerEmbeddings("my-lam")')


def means(chunker):
    """The mean of a text's chunks, weighted by their tokens: the text's vector, if the model has read it whole."""
    for text in TEXTS:
        chunks = chunker.chunk(text)
        yield np.average([chunk.embedding for chunk in chunks], axis=0, weights=[chunk.token_count for chunk in chunks])


chunker = LateChunker("my-lam", chunk_size=256)
check(means(chunker), 'LateChunker("my-lam")')
chunker = LateChunker(SentenceTransformerEmbeddings(lam_model.load("my-lam")), chunk_size=256)
check(means(chunker), 'LateChunker(SentenceTransformerEmbeddings(lam_model.load("my-lam")))')
