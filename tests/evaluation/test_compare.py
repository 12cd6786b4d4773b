"""LAM beside the base: cosine and speed."""

from __future__ import annotations

import numpy as np
import pytest

from lam_model.evaluation import compare


class Model:
    """Vectors that depend on the texts' lengths; records the limit that it was called under."""

    max_seq_length = 256

    def __init__(self, shift):
        self.shift, self.limits = shift, []

    def encode(self, texts, **kwargs):
        self.limits.append(self.max_seq_length)
        vectors = np.stack([np.cos(np.arange(4) * len(t) + self.shift) for t in texts])
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_equal_vectors_have_cosine_one():
    figures = compare.compare_texts(Model(0), Model(0), [f"{'x' * i}" for i in range(1, 70)])
    assert figures["texts"] == 69
    assert figures["cosine"] == figures["worst_5_percent"] == 1


def test_the_worst_texts_are_worse_than_the_mean():
    figures = compare.compare_texts(Model(0), Model(0.3), [f"{'x' * i}" for i in range(1, 70)])
    assert figures["worst_5_percent"] < figures["cosine"] < 1


def test_both_read_as_many_tokens_as_the_base_and_the_limit_is_put_back():
    lam, base = Model(0), Model(0)
    lam.max_seq_length = 10**9
    compare.compare_texts(lam, base, ["a", "bb"])
    assert set(lam.limits) == {256}
    assert lam.max_seq_length == 10**9


def test_no_texts_are_refused():
    with pytest.raises(ValueError, match="no texts to compare"):
        compare.compare_texts(Model(0), Model(0), [])
