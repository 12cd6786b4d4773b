"""Three questions to a small corpus, four documents of which are longer than all-MiniLM-L6-v2 reads."""

# ruff: noqa: T201
from __future__ import annotations

import time
from pathlib import Path

import lam_model
from lam_model.folder.base import find_base
from lam_model.index.search import embed_corpus, model_key, search

CORPUS = Path(__file__).with_name("corpus.jsonl")
QUESTIONS = [
    "Will asteroid 2024 YR4 hit the Earth or the Moon?",
    "Does rain make traffic accidents more severe?",
    # Answered in the middle of an article of some 6,000 tokens: its first 256 say nothing of Mexico or lotteries.
    "Can lottery numbers be used to pick towns in Mexico fairly?",
]


def main() -> None:
    model = lam_model.load()
    begun = time.perf_counter()
    documents, index = embed_corpus(model, CORPUS, model_key(model))
    seconds = time.perf_counter() - begun
    chars = sum(len(document.whole) for document in documents)
    print(f"{len(documents)} documents, {chars:,} characters, none cut: {seconds:.1f} s")
    print(f"(their vectors are kept in {CORPUS.name}.lam.npz: from the second time on they are only read)\n")

    for question, hits in zip(QUESTIONS, search(model, QUESTIONS, documents, index, top_k=3), strict=True):
        print(question)
        for hit in hits:
            print(f"  {hit.score:.3f}  {hit.title:.100}")
        print()

    from sentence_transformers import SentenceTransformer

    base = SentenceTransformer(str(find_base()), device="cpu")
    text = documents[0].whole
    tokens = base.tokenizer(text, truncation=True, max_length=256, return_offsets_mapping=True)
    start = text[: max(end for _, end in tokens["offset_mapping"])]
    cosine = model.encode(start) @ base.encode(start, normalize_embeddings=True)
    print(f'The first 256 tokens of "{documents[0].title}":')
    print(f"  cosine of LAM's vector to all-MiniLM-L6-v2's: {cosine:.3f}\n")

    print("Next, try:")
    print('  lam search demo/corpus.jsonl "What did patients say after learning to sing?"')
    print('  lam encode "a sentence" "a whole document" --output vectors.npy')
    print("  lam encode --file demo/corpus.jsonl --output vectors.parquet")
    print('  lam compare "a sentence" "another one"')


if __name__ == "__main__":
    main()
