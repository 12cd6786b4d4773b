"""What tells one model's vectors from another's."""

from __future__ import annotations

import torch

from lam_model.runtime.sentence_transformers import key_of


def test_the_key_of_a_model_changes_with_whatever_changes_its_vectors():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 2))
    model.max_seq_length, model.truncate_dim = 8, None
    keys = [key_of(model), key_of(model)]
    assert keys[0] == keys[1]
    model.max_seq_length = 9
    keys.append(key_of(model))
    model.truncate_dim = 2
    keys.append(key_of(model))
    model[0].base_only = True
    keys.append(key_of(model))
    model.bfloat16()
    keys.append(key_of(model))
    with torch.no_grad():
        model[0].bias[0] += 1
    keys.append(key_of(model))
    assert len(set(keys)) == 6
