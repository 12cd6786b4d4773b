"""One vector for a long document: close to its own passages, and far from those of other documents.

The mean over thousands of tokens is close to the means of all other documents, so that a single fact hardly changes it.
A linear discriminant of the document's passages against the passages of all documents removes what they have in common.
A passage counts more, the farther away the nearest other passage of its document is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from .passages import Passages

# Chosen on articles and hidden facts that are not used for evaluation (docs/LOG.md).
_BACKGROUND = 8.0  # weight of the background's moment, of 1 for the document's
_RIDGE = 0.001
_NOVELTY = 3.0
_ROWS = 1024  # of a matrix of cosines at a time: a document may have any number of passages


def document_vectors(passages: Sequence[Passages], background: np.ndarray | None = None) -> np.ndarray:
    """The discriminant of each document's passages, to be compared with queries by their cosine.

    As exemplar LDA does for images (Hariharan, Malik, Ramanan, "Discriminative Decorrelation for Clustering and
    Classification", 2012): least squares to 0 on the background, with a ridge, and on the document's passages to what
    each of them has that no other has, exp(-3 cosine to the nearest).

    Args:
        passages: of each document, as from `encode_passages`. A document without any has the vector of its text.
        background: the second moment of passages at large, `vectors.T @ vectors / len(vectors)`, (size, size); that
            of these documents' passages if None. Documents that come later need the same one to be comparable.

    Returns:
        Unit vectors, float32 (documents, size).

    Raises:
        ValueError: there are no documents, or the background is of vectors of another size.
    """
    if not len(passages):
        raise ValueError("there are no documents: give the passages of one at least")
    size = len(passages[0].vector)
    if background is None:
        background = _second_moment(np.concatenate([one.vectors for one in passages]))
    if background.shape != (size, size):
        raise ValueError(f"background has the shape {background.shape}: of vectors of {size} it is {(size, size)}")
    background = _BACKGROUND * background + _RIDGE * np.eye(size)
    return np.stack([_discriminant(one, background) for one in passages]).astype(np.float32)


def _discriminant(document: Passages, background: np.ndarray) -> np.ndarray:
    vectors = document.vectors.astype(np.float64)
    if not len(vectors):
        return document.vector
    novelty = np.exp(-_NOVELTY * np.concatenate(list(_nearest(vectors))))
    found = np.linalg.solve(_second_moment(vectors) + background, novelty @ vectors)
    return found / np.linalg.norm(found)


def _nearest(vectors: np.ndarray) -> Iterator[np.ndarray]:
    """Of some vectors at a time, the cosine of each to the nearest other of all."""
    for start in range(0, len(vectors), _ROWS):
        cosines = vectors[start : start + _ROWS] @ vectors.T
        np.fill_diagonal(cosines[:, start:], -1)
        yield cosines.max(1)


def _second_moment(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors.astype(np.float64)
    return vectors.T @ vectors / max(1, len(vectors))
