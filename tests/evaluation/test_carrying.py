"""A model of which a part of what it carries is taken away, for a while."""

from __future__ import annotations

import folders as folder
import numpy as np
import pytest

import lam_model
from lam_model.evaluation.carrying import carrying
from lam_model.reading import passages


@pytest.mark.parametrize("kept", [{}, {"beginning": True}, {"last": True}, {"beginning": True, "last": True}])
def test_passages_depend_on_what_is_carried_alone(
    tiny_base, tiny_weights, lively_gates, sentences, tmp_path, monkeypatch, kept
):
    monkeypatch.setattr(passages, "OF_BEGINNING", 0.0)  # what is added to a vector is not carried
    monkeypatch.setattr(passages, "OF_BEFORE", 0.0)
    model = lam_model.load(folder.build(tmp_path / "lam", tiny_weights, tiny_base), device="cpu")
    lively_gates(model[0].auto_model)
    texts = sentences(8, 20)
    others = {
        "beginning": [sentences(1, 20, seed=5)[0], *texts[1:]],
        "last": [*texts[:6], sentences(1, 20, seed=5)[0], texts[7]],
    }
    with carrying(model, **kept):
        before = model.encode_passages([texts])[0].vectors[-1]
        for name, changed in others.items():
            difference = np.abs(model.encode_passages([changed])[0].vectors[-1] - before).max()
            assert (difference > 1e-4) == (name in kept) or (kept == {"last": True} and name == "beginning")
    after = model.encode_passages([texts])[0].vectors[-1]
    assert (np.abs(after - before).max() > 1e-5) == (len(kept) < 2)
