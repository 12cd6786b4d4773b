"""transformers' common tests of models and configurations, on a tiny LAM."""

from __future__ import annotations

import unittest

from tests.test_configuration_common import ConfigTester
from tests.test_modeling_common import ModelTesterMixin, ids_tensor, random_attention_mask

from lam_model.model.configuration_lam import LamConfig
from lam_model.model.modeling_lam import LamModel

SIZES = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "block_size": 16,
    "type_vocab_size": 2,
    "pad_token_id": 0,
}


class LamModelTester:
    """What the mixin asks for sizes and inputs; texts are of more than one block."""

    batch_size, seq_length, is_training = 3, 21, False
    hidden_size, num_hidden_layers = SIZES["hidden_size"], SIZES["num_hidden_layers"]

    def __init__(self, parent: unittest.TestCase):
        self.parent = parent

    def prepare_config_and_inputs_for_common(self) -> tuple[LamConfig, dict]:
        shape = [self.batch_size, self.seq_length]
        inputs = {"input_ids": ids_tensor(shape, SIZES["vocab_size"]), "attention_mask": random_attention_mask(shape)}
        return LamConfig(**SIZES), inputs


class LamModelTest(ModelTesterMixin, unittest.TestCase):
    all_model_classes = (LamModel,)
    has_attentions = False

    def setUp(self):
        self.model_tester = LamModelTester(self)

    def test_config(self):
        ConfigTester(self, config_class=LamConfig, **SIZES).run_common_tests()
