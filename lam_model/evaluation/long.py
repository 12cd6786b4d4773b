"""Retrieval among long documents: LAM's vectors and passages beside MiniLM in pieces, MiniLM cut short, and BM25."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..progress import progress
from ..reading.discriminant import document_vectors
from .carrying import carrying
from .compare import load_base
from .long_sets import RetrievalSet
from .scores import BASE_MOST, Scores

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from ..runtime.sentence_transformers import Lam

LAM, DISCRIMINANT, PASSAGE = "LAM", "LAM, document vector", "LAM, best passage"
WITHOUT_STATE = "LAM without carried state"
DISCRIMINANT_WITHOUT_STATE, PASSAGE_WITHOUT_STATE = (
    f"{WITHOUT_STATE}, document vector",
    f"{WITHOUT_STATE}, best passage",
)
PASSAGE_ALONE = "LAM, best passage embedded alone"
PIECES, PIECE, CUT, BM25 = "MiniLM, mean of pieces", "MiniLM, best piece", "MiniLM, 256 tokens", "BM25"
_DEPTH = 10  # ranks that nDCG looks at
_BATCH = 8  # long documents at a time, whose hidden states are kept until they are pooled


def evaluate_long(
    lam: Lam,
    sets: dict[str, RetrievalSet],
    scores: Scores | None = None,
    done: Callable[[Scores], None] = lambda scores: None,
) -> Scores:
    """Score all rows on all sets.

    A document counts as its one vector, or, in the rows of passages and pieces, as the best of several.

    Args:
        lam: as from `lam_model.load`, in torch and without a limit to the text's length.
        sets: by name.
        scores: of an earlier call: they are not measured again.
        done: called with all scores after each that was measured.

    Returns:
        Scores in percent: {row: {set: score}}.

    Raises:
        ImportError: bm25s is not installed.
    """
    encoders = _encoders(lam, load_base())
    scores = {row: dict((scores or {}).get(row, {})) for rows in encoders for row in rows}
    with progress(total=len(sets) * len(encoders), unit="set") as bar:
        for name, retrieval in sets.items():
            for rows, rank in encoders.items():
                bar.set_description(f"{name}: {rows[0]}")
                if any(name not in scores[row] for row in rows):
                    for row, similarity in zip(rows, rank(retrieval.queries, retrieval.documents), strict=True):
                        scores[row][name] = round(100 * score(similarity, retrieval), 2)
                    done(scores)
                bar.update()
    return scores


def score(similarity: np.ndarray, retrieval: RetrievalSet) -> float:
    """The mean over queries of a set's metric, 0 to 1.

    Args:
        similarity: (queries, documents).
    """
    return float(score_each(similarity, retrieval.relevant, retrieval.metric).mean())


def score_each(similarity: np.ndarray, relevant: Sequence[set[int]], metric: str) -> np.ndarray:
    """The metric of every query, 0 to 1, float64 (queries,). nDCG has binary relevance.

    Args:
        similarity: (queries, documents).
        relevant: of each query, the documents that answer it, at least one.
        metric: `accuracy` of the first rank, or `ndcg@10`.
    """
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :_DEPTH]
    hits = np.array([[document in wanted for document in row] for row, wanted in zip(order, relevant, strict=True)])
    if metric == "accuracy":
        return hits[:, 0].astype(np.float64)
    gains = 1 / np.log2(np.arange(hits.shape[1]) + 2)
    best = np.array([gains[: len(wanted)].sum() for wanted in relevant])
    return (hits * gains).sum(1) / best


def long_table(scores: Scores, sets: dict[str, dict[str, Any]]) -> str:
    """The scores as a markdown table, a line a set."""
    lines = [["set", "queries", "documents", "metric", *scores], ["---"] * (len(scores) + 4)]
    for name, about in sets.items():
        cells = [by_set.get(name) for by_set in scores.values()]
        numbers = [f"{about[key]}" for key in ("queries", "documents", "metric")]
        lines.append([name, *numbers, *("" if cell is None else f"{cell:.2f}" for cell in cells)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _encoders(lam: Lam, base: SentenceTransformer) -> dict[tuple[str, ...], Callable[..., Iterator[np.ndarray]]]:
    """Of the rows that need the documents to be read in the same way, the functions that give their similarities."""

    def with_state(queries: list[str], documents: list[str]) -> Iterator[np.ndarray]:
        asked = lam.encode(queries)
        yield asked @ lam.encode(documents, batch_size=_BATCH).T
        found = lam.encode_passages(documents)
        yield asked @ document_vectors(found).T
        yield _best(asked, [one.vectors for one in found])
        alone = [text[i:j] for text, one in zip(documents, found, strict=True) for i, j in one.offsets]
        yield _best(asked, _grouped(_each_once(lam.encode, alone), [len(one.offsets) for one in found]))

    def without_state(queries: list[str], documents: list[str]) -> Iterator[np.ndarray]:
        with carrying(lam):
            vectors = lam.encode(documents, batch_size=_BATCH)
            found = lam.encode_passages(documents)
        asked = lam.encode(queries)
        yield asked @ vectors.T
        yield asked @ document_vectors(found).T
        yield _best(asked, [one.vectors for one in found])

    def in_pieces(queries: list[str], documents: list[str]) -> Iterator[np.ndarray]:
        ids = base.tokenizer(documents, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
        size = BASE_MOST - 2
        pieces = [[tuple(row[i : i + size]) for i in range(0, max(1, len(row)), size)] for row in ids]
        found = _each_once(lambda different: _encode_tokens(base, different), list(chain(*pieces)))
        vectors = _grouped(found, list(map(len, pieces)))
        means = [np.dot([len(piece) or 1 for piece in row], found) for row, found in zip(pieces, vectors, strict=True)]
        asked = base.encode(queries)
        yield asked @ np.stack([mean / np.linalg.norm(mean) for mean in means]).T
        yield _best(asked, vectors)

    def cut(queries: list[str], documents: list[str]) -> Iterator[np.ndarray]:
        yield base.encode(queries) @ base.encode(documents).T

    def by_words(queries: list[str], documents: list[str]) -> Iterator[np.ndarray]:
        yield bm25(queries, documents)

    return {
        (LAM, DISCRIMINANT, PASSAGE, PASSAGE_ALONE): with_state,
        (WITHOUT_STATE, DISCRIMINANT_WITHOUT_STATE, PASSAGE_WITHOUT_STATE): without_state,
        (PIECES, PIECE): in_pieces,
        (CUT,): cut,
        (BM25,): by_words,
    }


def _each_once(encode: Callable[[list[Any]], np.ndarray], texts: list[Any]) -> np.ndarray:
    """The vectors of texts or pieces, of which those that come again are encoded once."""
    places = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    return encode(list(places))[[places[text] for text in texts]]


@torch.inference_mode()
def _encode_tokens(base: SentenceTransformer, texts: list[tuple[int, ...]]) -> np.ndarray:
    """Unit vectors of texts given as token ids without [CLS] and [SEP]."""
    tokenizer = base.tokenizer
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    vectors = [np.empty(0)] * len(texts)
    for start in range(0, len(order), 32):
        rows = order[start : start + 32]
        whole = [[tokenizer.cls_token_id, *texts[i], tokenizer.sep_token_id] for i in rows]
        batch = tokenizer.pad({"input_ids": whole}, return_tensors="pt")
        for i, vector in zip(rows, base(dict(batch))["sentence_embedding"], strict=True):
            vectors[i] = vector.numpy()
    return np.stack(vectors)


def _grouped(vectors: np.ndarray, counts: list[int]) -> list[np.ndarray]:
    return np.split(vectors, np.cumsum(counts)[:-1])


def _best(asked: np.ndarray, vectors: list[np.ndarray]) -> np.ndarray:
    """The similarity of every query to the best of every document's vectors; a document without any comes last."""
    return np.stack([(asked @ rows.T).max(axis=1, initial=-1.0) for rows in vectors], axis=1)


def bm25(queries: list[str], documents: list[str]) -> np.ndarray:
    """BM25 of every query and document, float32 (queries, documents): 0 where they share no word but stop words.

    Raises:
        ImportError: bm25s is not installed.
    """
    try:
        import bm25s
        import Stemmer
    except ImportError as error:
        raise ImportError("the row BM25 needs bm25s: pip install 'lam-model[mteb]'") from error

    def words(texts: list[str]) -> list[list[str]]:
        stemmer = Stemmer.Stemmer("english")
        return bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, return_ids=False, show_progress=False)

    index = bm25s.BM25()
    index.index(words(documents), show_progress=False)
    nothing = np.zeros(len(documents), np.float32)  # for a query of stop words alone
    return np.stack([index.get_scores(query) if query else nothing for query in words(queries)])
