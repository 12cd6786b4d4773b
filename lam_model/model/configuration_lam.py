"""The configuration of a LAM: the sizes of the BERT encoder that it was made from, and nothing more."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig


class LamConfig(PretrainedConfig):
    """Sizes of a LAM, all read from its base's config.

    Args:
        vocab_size, hidden_size, num_hidden_layers, num_attention_heads, intermediate_size, hidden_act,
        layer_norm_eps, type_vocab_size, pad_token_id: as in the base's `BertConfig`.
        block_size: the base's number of position embeddings. A longer text is read in blocks of as many tokens.
        base_only: skip the output of the DeltaNet layers (no token mixing: the *base-only* variant).
    """

    model_type = "lam"

    def __init__(
        self,
        vocab_size: int = 30522,
        hidden_size: int = 384,
        num_hidden_layers: int = 6,
        num_attention_heads: int = 12,
        intermediate_size: int = 1536,
        hidden_act: str = "gelu",
        layer_norm_eps: float = 1e-12,
        type_vocab_size: int = 2,
        pad_token_id: int = 0,
        block_size: int = 512,
        base_only: bool = False,
        **kwargs: Any,
    ):
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.hidden_act = hidden_act
        self.layer_norm_eps = layer_norm_eps
        self.type_vocab_size = type_vocab_size
        self.block_size = block_size
        self.base_only = base_only
        super().__init__(pad_token_id=pad_token_id, **kwargs)
