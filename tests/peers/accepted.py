"""The failures of peers' tests that are accepted, with their reasons; a pytest plugin that expects them.

A test that stands here and passes is a failure too, so the table cannot grow old.
"""

from __future__ import annotations

import pytest

ACCEPTED = {
    "test_model_weights_reload_no_missing_tied_weights": "a file without the weights is refused",
    "test_retain_grad_hidden_states_attentions": "hidden states of a text of several blocks are gathered from its "
    "blocks: the output was not computed from them, and gradients go to the weights and `inputs_embeds`",
    "test_load_checkpoint_with_peft_and_lora": "it adapts layers called query, key and value, which are in one here",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if reason := ACCEPTED.get(item.name):
            item.add_marker(pytest.mark.xfail(reason=reason, strict=True))
