"""Three questions to a small corpus, four documents of which are longer than all-MiniLM-L6-v2 reads."""

# ruff: noqa: T201
from __future__ import annotations

import time
from pathlib import Path

import lam_model
from lam_model.index.search import embed_corpus, search

CORPUS = Path(__file__).with_name("corpus.jsonl")
QUESTIONS = [
    "Will asteroid 2024 YR4 hit the Earth or the Moon?",
    "Does rain make traffic accidents more severe?",
    # Answered in the middle of an article of some 6,000 tokens: its first 256 say nothing of Mexico or lotteries.
    "Can lottery numbers be used to pick towns in Mexico fairly?",
]


def main() -> None:
    model = lam_model.OnnxEncoder()
    print(f"Embedding all passages of {CORPUS.name} (half a minute on two cores, the first time) ...", flush=True)
    begun = time.perf_counter()
    documents, index = embed_corpus(model, CORPUS, model.key)
    seconds = time.perf_counter() - begun
    chars = sum(len(document.whole) for document in documents)
    print(f"{len(documents)} documents, {len(index.vectors):,} passages, {chars:,} characters: {seconds:.1f} s")
    print(f"(their vectors are kept in {CORPUS.name}.lam.npz: from the second time on they are only read)\n")

    for question, hits in zip(QUESTIONS, search(model, QUESTIONS, documents, index, top_k=3), strict=True):
        print(question)
        for hit in hits:
            print(f"  {hit.score:.3f}  {hit.title:.100}")
        if hits[0].passage:
            print(f"         {hits[0].passage.text!r:.110}")
        print()

    print("Next, try:")
    print('  lam search demo/corpus.jsonl "What did patients say after learning to sing?"')
    print('  lam encode "a sentence" "a whole document" --output vectors.npy')
    print("  lam encode --file demo/corpus.jsonl --passages --output passages.jsonl")


if __name__ == "__main__":
    main()
