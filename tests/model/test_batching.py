"""Which texts are read together: every one once, alike in length, within the budget."""

from __future__ import annotations

import random

import pytest

from lam_model.model.batching import CPU, alike


@pytest.mark.parametrize("seed", range(20))
def test_every_text_is_read_once_in_order_with_few_pads(seed):
    draw = random.Random(seed)
    lengths = sorted((draw.choice([1, 3, 20, 511, 512]) for _ in range(draw.randint(1, 200))), reverse=True)
    groups = list(alike(lengths, **CPU))
    assert [i for group in groups for i in range(len(lengths))[group]] == list(range(len(lengths)))
    for group in groups:
        rows = lengths[group]
        assert len(rows) == 1 or len(rows) * rows[0] <= CPU["most"]
        assert len(rows) * rows[0] - sum(rows) <= max(CPU["spare"], sum(rows) / 16)


def test_a_text_over_the_budget_is_read_alone():
    assert list(alike([700, 9, 5, 3, 2, 1], most=12, spare=0)) == [slice(i, i + 1) for i in range(6)]


def test_no_texts_are_no_groups():
    assert list(alike([], **CPU)) == []
