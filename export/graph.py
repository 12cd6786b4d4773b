"""From a LAM to an ONNX graph that reads a text block by block, in constant memory.

Inputs `input_ids` and `attention_mask` are one block (at most `block_size` tokens) of each text; the `past_*` inputs,
zeros unless given, are what the graph returned as `present_*` for the block before: the DeltaNet layers' state, and
the sum and number of the token vectors read so far. `sentence_embedding` is of all that was read.
"""

from __future__ import annotations

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from lam_model.modeling_lam import LamModel

OPSET = 20
BATCH_SHAPE = "batch_shape"  # the tensor [number of texts]
_EXAMPLE = (2, 8)  # texts, tokens that the export runs on; the graph takes any


class BlockEncoder(nn.Module):
    """A LAM with mean pooling and normalisation inside, and all that is carried from block to block outside."""

    def __init__(self, model: LamModel):
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, past_sum: Tensor, past_count: Tensor, past_state: Tensor | None
    ) -> tuple[Tensor, ...]:
        output = self.model.forward_block(input_ids, attention_mask, past_state, first_block=past_count[:, 0] == 0)
        mask = attention_mask.to(output.last_hidden_state.dtype)[..., None]
        total = past_sum + (output.last_hidden_state * mask).sum(1)
        count = past_count + mask.sum(1)
        embedding = F.normalize(total / count.clamp(min=1), dim=-1)
        state = () if output.state is None else (output.state,)
        return embedding, output.last_hidden_state, total, count, *state


def to_onnx(model: LamModel) -> onnx.ModelProto:
    """The graph of a LAM in float32, or of its base-only variant, as `model.config.base_only` has it."""
    config = model.config
    batch, length = _EXAMPLE
    heads = config.num_attention_heads
    width = config.hidden_size // heads
    ids = torch.ones(batch, length, dtype=torch.long)
    past = {"past_sum": (config.hidden_size,), "past_count": (1,)}
    if not config.base_only:
        past["past_state"] = (config.num_hidden_layers, heads, width, width)
    inputs = {"input_ids": ids, "attention_mask": ids.clone()} | {  # one tensor twice would be one input
        name: torch.zeros(batch, *shape) for name, shape in past.items()
    }
    inputs.setdefault("past_state", None)
    tokens = {0: "batch", 1: "length"}
    dynamic = {name: tokens for name in ("input_ids", "attention_mask")} | {name: {0: "batch"} for name in past}
    dynamic.setdefault("past_state", None)
    program = torch.onnx.export(
        BlockEncoder(model).eval(),
        kwargs=inputs,
        dynamo=True,
        opset_version=OPSET,
        dynamic_shapes=dynamic,
        input_names=[name for name, value in inputs.items() if value is not None],
        output_names=["sentence_embedding", "last_hidden_state", *(name.replace("past", "present") for name in past)],
        external_data=False,
        verbose=False,
    )
    return _with_defaults(program.model_proto, past)


def _with_defaults(model: onnx.ModelProto, past: dict[str, tuple[int, ...]]) -> onnx.ModelProto:
    """Give the `past_*` inputs zeros to start from.

    A default is an initialiser of the input's name, and has a fixed shape: one text's, which is then expanded to the
    batch of `input_ids`.
    """
    graph = model.graph
    nodes = [
        helper.make_node("Shape", ["input_ids"], [BATCH_SHAPE], start=0, end=1),
    ]
    for name, shape in past.items():
        graph.initializer.append(numpy_helper.from_array(torch.zeros(1, *shape).numpy(), name))
        ones = f"{name}_ones"
        graph.initializer.append(helper.make_tensor(ones, TensorProto.INT64, [len(shape)], [1] * len(shape)))
        nodes.append(helper.make_node("Concat", [BATCH_SHAPE, ones], [f"{name}_shape"], axis=0))
        nodes.append(helper.make_node("Expand", [name, f"{name}_shape"], [f"{name}_expanded"]))
        for node in graph.node:
            for i, used in enumerate(node.input):
                if used == name:
                    node.input[i] = f"{name}_expanded"
        (given,) = (value for value in graph.input if value.name == name)
        given.type.tensor_type.shape.dim[0].dim_param = f"{name}_batch"
    for i, node in enumerate(nodes):
        graph.node.insert(i, node)
    return model
