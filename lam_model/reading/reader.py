"""What passages, streams and search need of a model, whichever runtime computes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from tokenizers import Tokenizer

# What a model has read of a text, float32 (layers, 2, heads, head size, head size): the states after its first part and
# after its last, as the runtime keeps them. None where nothing has been read, and of a model without DeltaNet layers.
State = Any


@runtime_checkable
class Reader(Protocol):
    """Reads texts block by block.

    Args:
        tokenizer: neither cuts nor pads.
        block_size: most tokens of a block.
        dimension: size of a hidden state.
        weights: sha256 of the DeltaNet weights, in hexadecimal; None where it is not known.
    """

    tokenizer: Tokenizer
    block_size: int
    dimension: int
    weights: str | None

    def read(
        self, blocks: Sequence[Sequence[Sequence[int]]], states: Sequence[State], first: bool
    ) -> tuple[list[np.ndarray], list[State]]:
        """Read a block of each text.

        Args:
            blocks: of each text, the parts of its block; of each part, its token ids. Every part is read as if it were
                a block of its own. A block has at most `block_size` tokens.
            states: of each text, as returned for the block before; None where texts begin.
            first: whether each part begins with position 0, as the first token of a text does.

        Returns:
            Of each text, the sums of the last hidden states over the tokens of each part, float32 (parts, dimension);
            and its state.
        """

    def array(self, x: Any) -> Any:
        """Numbers as an array of the runtime, to be saved."""


def reader_of(model: Any) -> Reader:
    """The reader that a model is, has, or can be given: of an `OnnxEncoder` or a `SentenceTransformer`.

    Raises:
        TypeError: the model is not a LAM.
        ValueError: it does not pool its tokens by their mean.
    """
    if isinstance(model, Reader):
        return model
    if isinstance(found := getattr(model[0], "encoder", None), Reader):  # on ONNX Runtime, in a `SentenceTransformer`
        return found
    from .torch_reader import TorchReader

    return TorchReader(model)
