"""A map of documents: one HTML page on which those of like meaning are near each other.

The page is our own and a few kilobytes, for none of the libraries that draw such pages is self-contained and small.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..corpus.documents import Document
from ..files import replacing

CHARS = 4000  # of a document's text in the page at most
_NEIGHBOURS = 15  # that UMAP keeps near: of fewer documents, the principal components are drawn
_CLUSTERS = 16  # at most: more are hard to tell apart
_WORDS = 3  # of a cluster
_WORD = r"[^\W\d_]{3,}"


def check_libraries() -> None:
    """Refuse, before any work is done, to draw a map without the libraries for it.

    Raises:
        ModuleNotFoundError: umap-learn is not installed.
    """
    try:
        import umap  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error.name} is not installed: pip install 'lam-model[map]'") from error


def write_map(
    documents: Sequence[Document], vectors: np.ndarray, path: Path, name: str, clusters: int | None = None
) -> int:
    """Write documents as a map to an HTML page that loads nothing from elsewhere.

    The same documents and vectors give the same page.

    Args:
        documents: one at least.
        vectors: of the documents, (documents, size).
        name: heading of the page.
        clusters: how many at most; None: by the number of documents.

    Returns:
        The number of clusters.

    Raises:
        ModuleNotFoundError: as `check_libraries`.
        OSError: the page cannot be written.
    """
    check_libraries()
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # sums of several threads differ from run to run
        number = find_clusters(vectors, clusters or round(np.clip((len(vectors) / 3) ** 0.5, 1, _CLUSTERS)))
        places = lay_out(vectors)
    words = typical_words([document.whole for document in documents], number)
    content: dict[str, Any] = {"name": name, "clusters": words, "points": []}
    for document, (x, y), cluster in zip(documents, places.tolist(), number.tolist(), strict=True):
        text = document.text if len(document.text) <= CHARS else f"{document.text[:CHARS]} …"
        content["points"].append({"x": x, "y": y, "cluster": cluster, "title": document.title, "text": text})
    # No text can end the script that it is in; a lone surrogate becomes the escape that JSON has for it.
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("<", r"\u003c")
    page = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
    with replacing(path) as beside:
        beside.write_text(page.replace("DATA", data, 1), encoding="utf-8", errors="backslashreplace")
    return len(words)


def lay_out(vectors: np.ndarray) -> np.ndarray:
    """A place in the plane for each vector, (vectors, 2), from 0 to 1000: by UMAP, or of a few vectors by PCA."""
    if len(vectors) > _NEIGHBOURS:
        import umap

        # From the principal components, groups come to lie as they do in the whole.
        places = umap.UMAP(_NEIGHBOURS, metric="cosine", min_dist=0.3, init="pca", random_state=0, n_jobs=1)
        flat = np.asarray(places.fit_transform(vectors), np.float64)
    else:
        directions, sizes, _ = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
        flat = np.zeros((len(vectors), 2))
        flat[:, : len(sizes)] = (directions * sizes)[:, :2]
    flat -= flat.min(axis=0)
    if flat[:, 1].max() > flat[:, 0].max():  # screens are wide
        flat = flat[:, ::-1]
    return np.round(1000 * flat / (flat.max() or 1), 1)


def find_clusters(vectors: np.ndarray, count: int) -> np.ndarray:
    """The number of each vector's cluster, (vectors,), by k-means: from 0, the largest cluster first."""
    from sklearn.cluster import KMeans

    count = min(count, len(np.unique(vectors, axis=0)))
    found = KMeans(count, n_init=4, random_state=0).fit_predict(vectors)
    return np.argsort(np.argsort(-np.bincount(found, minlength=count), kind="stable"))[found]


def typical_words(texts: list[str], clusters: np.ndarray) -> list[list[str]]:
    """A few words of each cluster: those of many texts in it and of few in all, like TF-IDF of clusters."""
    from sklearn.feature_extraction.text import CountVectorizer

    counter = CountVectorizer(stop_words="english", token_pattern=_WORD, binary=True)
    try:
        has = counter.fit_transform(texts)
    except ValueError:  # there is no word in all the texts
        return [[] for _ in range(clusters.max() + 1)]
    rarity = np.log((1 + len(texts)) / np.asarray(has.sum(axis=0)).ravel())
    names = counter.get_feature_names_out()
    words = []
    for cluster in range(clusters.max() + 1):
        share = np.asarray(has[clusters == cluster].mean(axis=0)).ravel()
        best = np.argsort(-share * rarity, kind="stable")[:_WORDS]
        words.append([str(names[i]) for i in best if share[i]])
    return words
