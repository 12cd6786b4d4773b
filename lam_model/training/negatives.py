"""Hard negatives: documents that look like answers to a query and are none, found by the model itself and by BM25.

`mine_hard_negatives` of sentence-transformers asks one model only, and leaves out queries that have too few; here BM25
takes part, another model says what is a false negative, and a query always gets its number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ..files import replacing
from ..progress import progress
from .tasks import Retrieval

# The very nearest documents of a query are the likeliest to be answers that nobody has judged (Qu et al.,
# "RocketQA", 2021, section 3.2); far ones teach nothing.
NEAREST, FARTHEST = 3, 25
_BATCH = 32


class Negative(NamedTuple):
    """A document that was found for a query, by whom, and its rank there, from 1."""

    document: str
    miner: str
    rank: int


class Vectors:
    """A model's unit vectors of texts, kept on disk: each list of texts is embedded once.

    Args:
        encode: gives the vectors of some texts, (texts, size).
        key: what tells the model from others.
        folder: where vectors are kept.
    """

    def __init__(self, encode: Callable[[list[str]], np.ndarray], key: str, folder: Path):
        self.encode, self.key, self.folder = encode, key, folder

    def __call__(self, texts: list[str], what: str) -> np.ndarray:
        """(texts, size), float32; `what` is said beside the progress."""
        digest = hashlib.sha256("\0".join([self.key, *texts]).encode("utf-8", "surrogatepass")).hexdigest()
        path = self.folder / f"{digest[:32]}.npy"
        if path.is_file():
            return np.load(path)
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        batches = [order[start : start + _BATCH] for start in range(0, len(order), _BATCH)]
        found = [self.encode([texts[i] for i in batch]) for batch in progress(batches, desc=what, unit="batch")]
        vectors = np.concatenate(found).astype(np.float32)[np.argsort(order)]
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as beside, open(beside, "wb") as file:
            np.save(file, vectors)
        return vectors


class Embedders(NamedTuple):
    """The models whose vectors say which documents are hard negatives and which are false ones.

    Args:
        model: the one to be trained, as it starts.
        base: all-MiniLM-L6-v2, or what else the model was made from.
        teacher: a stronger one, if there is one.
    """

    model: Vectors
    base: Vectors
    teacher: Vectors | None = None


def nearest(task: Retrieval, vectors: Vectors, count: int) -> dict[str, list[str]]:
    """The ids of each query's nearest documents, nearest first, by the model's cosine."""
    from sentence_transformers.util import semantic_search

    names = list(task.corpus)
    hits = semantic_search(
        torch.from_numpy(vectors(list(task.queries.values()), f"{task.name}: queries")),
        torch.from_numpy(vectors(list(task.corpus.values()), f"{task.name}: documents")),
        top_k=min(count, len(names)),
    )
    return {query: [names[hit["corpus_id"]] for hit in found] for query, found in zip(task.queries, hits, strict=True)}


def best_by_words(task: Retrieval, count: int) -> dict[str, list[str]]:
    """The same by BM25."""
    import bm25s
    import Stemmer

    names, stemmer = list(task.corpus), Stemmer.Stemmer("english")

    def words(texts: dict[str, str]) -> bm25s.tokenization.Tokenized:
        return bm25s.tokenize(list(texts.values()), stopwords="en", stemmer=stemmer, show_progress=False)

    index = bm25s.BM25()
    index.index(words(task.corpus), show_progress=False)
    found = index.retrieve(words(task.queries), k=min(count, len(names)), show_progress=False).documents
    return {query: [names[i] for i in row] for query, row in zip(task.queries, found, strict=True)}


def mine(
    task: Retrieval, miner: Vectors, count: int, judge: Vectors | None = None, margin: float = 0.0, seed: int = 0
) -> dict[str, list[Negative]]:
    """So many negatives for each query of a task: those that the data name, then a draw from what is found.

    Args:
        miner: the vectors of the model that is to be trained.
        judge: a model by which a document is a false negative, if its cosine to the query is higher than that of
            the query's least document by more than `margin`; without one, whatever is not relevant is negative.
        seed: of the draw.
    """
    if len(task.corpus) < 2 * count:
        raise ValueError(f"{task.name} has {len(task.corpus)} documents: too few for {count} negatives a query")
    ranked = {"model": nearest(task, miner, FARTHEST), "BM25": best_by_words(task, FARTHEST)}
    too_near = _too_near(task, judge, margin) if judge else {}
    texts, everything = task.corpus, list(task.corpus)
    rng = np.random.default_rng(seed)
    mined = {}
    for query, relevant in task.relevant.items():
        answers = {texts[document] for document in relevant}
        chosen = [Negative(document, "data", 0) for document in task.negatives.get(query, [])][:count]
        pool: dict[str, Negative] = {}
        for name, lists in ranked.items():
            for rank, document in enumerate(lists[query], start=1):
                if rank >= NEAREST:
                    pool.setdefault(document, Negative(document, name, rank))
        taken = {negative.document for negative in chosen} | too_near.get(query, set())
        pool = {d: n for d, n in pool.items() if d not in taken and texts[d] not in answers}
        drawn = rng.permutation(list(pool))[: count - len(chosen)]
        chosen += [pool[document] for document in drawn]
        while len(chosen) < count:
            document = everything[rng.integers(len(everything))]
            if texts[document] not in answers and document not in {negative.document for negative in chosen}:
                chosen.append(Negative(document, "chance", 0))
        mined[query] = chosen
    return mined


def _too_near(task: Retrieval, judge: Vectors, margin: float) -> dict[str, set[str]]:
    names = {name: i for i, name in enumerate(task.corpus)}
    documents = judge(list(task.corpus.values()), f"{task.name}: documents, to judge by")
    queries = judge(list(task.queries.values()), f"{task.name}: queries, to judge by")
    found = {}
    ids = np.array(list(names))
    for query, vector in zip(task.queries, queries, strict=True):
        cosines = documents @ vector
        least = min(cosines[names[document]] for document in task.relevant[query])
        found[query] = set(ids[cosines > least + margin].tolist())
    return found
