"""Batches of one topic, in which the other queries' documents are hard negatives by themselves."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from sentence_transformers.base.sampler import DefaultBatchSampler


def by_topic(vectors: np.ndarray, size: int, seed: int = 0) -> list[int]:
    """An order of rows in which each batch of `size` is a row and its nearest that no batch had before.

    Hofstätter et al., "Efficiently Teaching an Effective Dense Retriever with Balanced Topic Aware Sampling" (2021),
    section 3.2, with neighbours in place of clusters, so that all batches have one size.

    Args:
        vectors: unit vectors, (rows, size of a vector).
    """
    order: list[int] = []
    free = np.ones(len(vectors), bool)
    for row in np.random.default_rng(seed).permutation(len(vectors)):
        if free[row]:
            cosines = np.where(free, vectors @ vectors[row], -np.inf)
            cosines[row] = np.inf
            batch = np.argsort(-cosines, kind="stable")[: min(size, int(free.sum()))]
            free[batch] = False
            order += batch.tolist()
    return order


class TopicBatches(DefaultBatchSampler):
    """The rows of a dataset that was ordered by topic, batch by batch, the batches in a new order each epoch."""

    def __iter__(self) -> Iterator[list[int]]:
        rows = len(self.sampler)
        starts = torch.arange(0, rows - self.batch_size + 1 if self.drop_last else rows, self.batch_size)
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        for i in torch.randperm(len(starts), generator=generator):
            start = int(starts[i])
            yield list(range(start, min(start + self.batch_size, rows)))
