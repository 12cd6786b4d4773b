"""Documents and a question for the recipes of passages, and the answer that they have to give."""

from __future__ import annotations

import sys

import numpy as np

import lam_model

TOLERANCE = 1e-5  # largest difference of a cosine
ANSWER = "She died at 36, and was buried beside her father, whom she had never known."

question = "How old was Ada Lovelace when she died?"

documents = [
    {
        "id": "lovelace",
        "title": "Ada Lovelace",
        "text": "Ada Lovelace was born in London in 1815. Her mother had her taught mathematics from an early age. "
        "In 1843 she translated an article about a machine that had not been built. Her own notes were longer than the "
        "article. They show how it could compute numbers, and they say that it might one day compose music. "
        "She died at 36, and was buried beside her father, whom she had never known.",
    },
    {
        "id": "babbage",
        "title": "Charles Babbage",
        "text": "Charles Babbage was a mathematician who was tired of errors in printed tables. He drew an engine that "
        "would compute and print them. The government paid for it for ten years, then stopped. He went on to design a "
        "second one, which was to read its orders from punched cards. It was never finished in his lifetime. "
        "He also wrote against the noise of street musicians.",
    },
    {
        "id": "curie",
        "title": "Marie Curie",
        "text": "Marie Curie was born in Warsaw in 1867. She studied in Paris, where she met her husband. They found "
        "two new elements in a mineral, and she named the first of them after her country. She wrote that she liked to "
        "work at night. In the war she drove cars with X-ray machines to the front.",
    },
]


def check_hits(hits: list[tuple[str, str, float]], k: int = 2) -> None:
    """Compare what a tool has found with the best passages of the `k` best documents, computed with numpy.

    Args:
        hits: each a document's id, the text of its best passage, and its cosine to `question`; best first.
    """
    encoder = lam_model.OnnxEncoder("my-lam")
    query = encoder.encode(question)
    texts, titles = ([document[key] for document in documents] for key in ("text", "title"))
    best = []
    for document, found in zip(documents, encoder.encode_passages(texts, title=titles), strict=True):
        cosines = found.vectors @ query
        start, end = found.offsets[cosines.argmax()]
        best.append((document["id"], document["text"][start:end], float(cosines.max())))
    best = sorted(best, key=lambda hit: -hit[2])[:k]
    assert best[0][1] == ANSWER
    same = [hit[:2] for hit in hits] == [hit[:2] for hit in best]
    if not same or not np.allclose([hit[2] for hit in hits], [hit[2] for hit in best], rtol=0, atol=TOLERANCE):
        sys.exit(f"found {hits}, not {best}")
