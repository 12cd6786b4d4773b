"""One vector for a long document that all of its passages are near to, and passages of other documents are not.

The mean over thousands of tokens is grey: it is near to what all documents have in common. A linear discriminant of the
document's passages against all passages is made of what they have in common among themselves alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .passages import Passages

_RIDGE = 0.003  # chosen, like the equal weights of the two moments, on articles that nothing is measured with


def document_vectors(passages: Sequence[Passages], background: np.ndarray | None = None) -> np.ndarray:
    """The discriminant of each document's passages, to be compared with queries by their cosine.

    As exemplar LDA does for images (Hariharan, Malik, Ramanan, "Discriminative Decorrelation for Clustering and
    Classification", 2012): least squares to 1 on the document's passages and to 0 on the background, with a ridge.

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
    background = background + _RIDGE * np.eye(size)
    return np.stack([_discriminant(one, background) for one in passages]).astype(np.float32)


def _discriminant(document: Passages, background: np.ndarray) -> np.ndarray:
    if not len(document.vectors):
        return document.vector
    found = np.linalg.solve(_second_moment(document.vectors) + background, document.vectors.mean(0))
    return found / np.linalg.norm(found)


def _second_moment(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors.astype(np.float64)
    return vectors.T @ vectors / max(1, len(vectors))
