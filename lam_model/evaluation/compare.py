"""LAM beside the base it was made from: cosine of their vectors, and speed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from ..folder.base import find_base
from ..progress import progress

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_BATCH = 32  # texts a timed batch: sentence-transformers' own default


def load_base() -> SentenceTransformer:
    """The base itself, which cuts texts at 256 tokens unless told otherwise."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(find_base()), device="cpu", local_files_only=True)


@contextmanager
def limited(model: SentenceTransformer, max_tokens: int) -> Iterator[SentenceTransformer]:
    """A model that reads at most so many tokens, for a while."""
    before = model.max_seq_length
    model.max_seq_length = max_tokens
    try:
        yield model
    finally:
        model.max_seq_length = before


def compare_texts(lam: SentenceTransformer, base: SentenceTransformer, texts: Sequence[str]) -> dict[str, float]:
    """Cosine of LAM's vectors to the base's, and the speed of both, batch for batch in turn.

    Both read as many tokens as the base does.

    Raises:
        ValueError: there are no texts.
    """
    if not texts:
        raise ValueError("there are no texts to compare: give one at least")
    texts = sorted(texts, key=len)
    batches = [texts[i : i + _BATCH] for i in range(0, len(texts), _BATCH)]
    models = {"lam": lam, "base": base}
    seconds = dict.fromkeys(models, 0.0)
    vectors: dict[str, list[np.ndarray]] = {name: [] for name in models}
    with limited(lam, base.max_seq_length):
        for model in models.values():
            model.encode(batches[-1], show_progress_bar=False)  # the first call is slower
        for batch in progress(batches, desc="texts", unit="batch"):
            for name, model in models.items():
                begun = time.perf_counter()
                vectors[name].append(model.encode(batch, normalize_embeddings=True, show_progress_bar=False))
                seconds[name] += time.perf_counter() - begun
    cosine = np.sort((np.concatenate(vectors["lam"]) * np.concatenate(vectors["base"])).sum(axis=1))
    return {
        "texts": len(texts),
        "max_tokens": base.max_seq_length,
        "cosine": round(float(cosine.mean()), 4),
        "worst_5_percent": round(float(cosine[: max(1, len(cosine) // 20)].mean()), 4),
        "lam_texts_per_second": round(len(texts) / seconds["lam"], 1),
        "minilm_texts_per_second": round(len(texts) / seconds["base"], 1),
    }
