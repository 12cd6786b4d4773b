"""Batches of one topic."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import Dataset

from lam_model.training.topics import TopicBatches, by_topic


@pytest.fixture
def topics():
    """Three topics of four rows each, shuffled: the topic of each row, and vectors."""
    topics = np.random.default_rng(0).permutation(np.repeat(np.arange(3), 4))
    vectors = np.eye(3)[topics] + np.random.default_rng(1).normal(scale=0.01, size=(12, 3))
    return topics, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_batches_are_of_one_topic(topics):
    order = by_topic(topics[1], 4)
    assert sorted(order) == list(range(12))
    for start in range(0, 12, 4):
        assert len(set(topics[0][order[start : start + 4]])) == 1


def test_the_order_depends_on_the_seed(topics):
    assert by_topic(topics[1], 4, seed=1) == by_topic(topics[1], 4, seed=1)
    assert {tuple(by_topic(topics[1], 4, seed=s)) for s in range(5)} != {tuple(by_topic(topics[1], 4))}


@pytest.mark.parametrize(("rows", "drop_last", "batches"), [(12, True, 3), (14, True, 3), (14, False, 4)])
def test_sampler_gives_whole_batches_in_an_order_of_its_epoch(rows, drop_last, batches):
    data = Dataset.from_dict({"query": ["x"] * rows})
    sampler = TopicBatches(data, batch_size=4, drop_last=drop_last, seed=3)
    found = list(sampler)
    assert len(found) == len(sampler) == batches
    assert all(batch == list(range(batch[0], batch[0] + len(batch))) and batch[0] % 4 == 0 for batch in found)
    assert sorted(row for batch in found for row in batch) == list(range(12 if drop_last else rows))
    assert list(sampler) == found
    orders = set()
    for epoch in range(6):
        sampler.set_epoch(epoch)
        orders.add(tuple(batch[0] for batch in sampler))
    assert len(orders) > 1
