"""From a LAM to an ONNX graph that reads a text block by block, in constant memory.

Inputs `input_ids` and `attention_mask` are one block (at most `block_size` tokens) of each text; the `past_*` inputs,
zeros unless given, are what the graph returned as `present_*` for the block before: the sum and number of the token
vectors read so far, and the state of each DeltaNet layer (one tensor for all would cost a batch of short texts a
twentieth of its time). `past_beginning_*` are the `present_state_*` of the text's first block, for all blocks after it.
`sentence_embedding` is of all that was read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from onnxscript.optimizer import remove_unused_nodes
from torch import Tensor, nn
from torch.nn import functional as F

from lam_model.model.directions import State
from lam_model.model.modeling_lam import LamModel

OPSET = 20
_EXAMPLE = (2, 8)  # texts, tokens that the export runs on; the graph takes any


class BlockEncoder(nn.Module):
    """A LAM with mean pooling and normalisation inside, and all that is carried from block to block outside."""

    def __init__(self, model: LamModel):
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        past_sum: Tensor,
        past_count: Tensor,
        past_beginnings: Sequence[Tensor] = (),
        past_states: Sequence[Tensor] = (),
    ) -> tuple[Tensor, ...]:
        states: Sequence[State | None] = [None] * len(self.model.layers)
        if past_states:
            states = [State(*both) for both in zip(past_beginnings, past_states, strict=True)]
        # Of the batch's length also where `past_count` is its default, one text's.
        first_block = (past_count == 0)[:, 0] & (attention_mask[:, 0] > 0)
        (last,), states = self.model._read(input_ids, attention_mask, states, first_block)
        mask = attention_mask.to(last.dtype)[..., None]
        total = past_sum + (last * mask).sum(1)
        count = past_count + mask.sum(1)
        embedding = F.normalize(total / count.clamp(min=1), dim=-1)
        carried = [state.last for state in states if state is not None] if past_states else []
        return embedding, last, total, count, *carried


def to_onnx(model: LamModel) -> onnx.ModelProto:
    """The graph of a LAM in float32, or of its base-only variant, as `model.config.base_only` has it."""
    config = model.config
    batch, length = _EXAMPLE
    heads = config.num_attention_heads
    width = config.hidden_size // heads
    ids = torch.ones(batch, length, dtype=torch.long)
    layers = 0 if config.base_only else config.num_hidden_layers
    past: dict[str, tuple[int, ...]] = {"past_sum": (config.hidden_size,), "past_count": (1,)}
    past |= {f"past_{of}_{i}": (heads, width, width) for of in ("beginning", "state") for i in range(layers)}
    total, count, *states = (torch.zeros(batch, *shape) for shape in past.values())
    inputs: list[Any] = [ids, ids.clone(), total, count]  # one tensor twice would be one input
    tokens, text = {0: "batch", 1: "length"}, {0: "batch"}
    dynamic: list[Any] = [tokens, tokens, text, text]
    if states:
        inputs += [states[:layers], states[layers:]]
        dynamic += [[text] * layers] * 2
    program = torch.onnx.export(
        BlockEncoder(model).eval(),
        tuple(inputs),
        dynamo=True,
        opset_version=OPSET,
        dynamic_shapes=tuple(dynamic),
        input_names=["input_ids", "attention_mask", *past],
        output_names=["sentence_embedding", "last_hidden_state", *presents(past)],
        external_data=False,
        verbose=False,
    )
    assert program is not None  # with `dynamo`
    graph = program.model_proto
    _drop_undone_reshapes(graph)
    return _with_defaults(graph, past)


def presents(past: Iterable[str]) -> list[str]:
    """The outputs that are carried to the next block, by the names of the inputs that take them."""
    return [name.replace("past", "present") for name in past if not name.startswith("past_beginning")]


def _drop_undone_reshapes(model: onnx.ModelProto) -> None:
    """Take out each Reshape that undoes another: the layer's code splits the heads, the operator takes them joined."""
    graph = model.graph
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in graph.value_info
    }
    reshaped = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Reshape"}
    same = {
        name: reshaped[before]
        for name, before in reshaped.items()
        if before in reshaped and name in shapes and shapes[name] == shapes.get(reshaped[before])
    }
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = same.get(name, name)
    remove_unused_nodes(model)


def _with_defaults(model: onnx.ModelProto, past: dict[str, tuple[int, ...]]) -> onnx.ModelProto:
    """Give the `past_*` inputs zeros to start from.

    A default is an initialiser of the input's name, and has a fixed shape: one text's. All that the graph computes
    with these inputs spreads it over the batch; how large that is, the tokens say.
    """
    graph = model.graph
    for node in graph.node:
        if node.op_type == "Shape" and node.input[0] in past:
            node.input[0] = "input_ids"
    for name, shape in past.items():
        graph.initializer.append(numpy_helper.from_array(torch.zeros(1, *shape).numpy(), name))
        (given,) = (value for value in graph.input if value.name == name)
        given.type.tensor_type.shape.dim[0].dim_param = f"{name}_batch"
    return model
