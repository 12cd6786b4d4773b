"""The same graph for other runtimes: each `LinearAttention` replaced by standard operators.

What replaces it is the chunked matrix form of the delta rule, its chunks in a `Scan`, exported once and copied to
each place by onnx's own inliner. The `past_*` inputs have no defaults here: not every runtime's interface takes an
input that has one.
"""

from __future__ import annotations

import onnx
import torch
from onnx import TensorProto, helper, inliner
from torch import Tensor, nn

from lam_model.model.delta_rule import CHUNK, chunked_delta_rule

OPERATOR = "LinearAttention"
_STATE = 3  # which of its inputs the state is
_DOMAIN = "lam"  # while the function has not been inlined yet
_EXAMPLE = (2, 2 * CHUNK + 3)  # texts, tokens: one chunk alone would be taken for a constant


class _DeltaRule(nn.Module):
    """`LinearAttention` as the graphs use it: tokens (batch, length, heads x width), left to right."""

    def __init__(self, heads: int):
        super().__init__()
        self.heads = heads

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, state: Tensor, log_decay: Tensor, beta: Tensor
    ) -> tuple[Tensor, Tensor]:
        query, key, value = (x.unflatten(-1, (self.heads, -1)) for x in (query, key, value))
        output, state = chunked_delta_rule(query, key, value, beta, log_decay, state)
        return output.flatten(2), state


def portable(model: onnx.ModelProto, heads: int, size: int) -> onnx.ModelProto:
    """A copy of a full graph, with standard operators only.

    Args:
        model: as from `to_onnx`.
        heads, size: number of attention heads, and hidden size of all of them together.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    _give_zero_states(copy.graph, (heads, size // heads, size // heads))
    for node in copy.graph.node:
        if node.op_type == OPERATOR:
            node.domain = _DOMAIN
            del node.attribute[:]
    copy.functions.append(_function(heads, size, _opset(model)))
    standard = [opset for opset in copy.opset_import if opset.domain == ""]
    del copy.opset_import[:]
    copy.opset_import.extend([*standard, helper.make_opsetid(_DOMAIN, 1)])
    copy = inliner.inline_local_functions(copy)
    del copy.opset_import[:]
    copy.opset_import.extend(standard)
    inputs = {value.name for value in copy.graph.input}
    initializers = [tensor for tensor in copy.graph.initializer if tensor.name not in inputs]
    del copy.graph.initializer[:]
    copy.graph.initializer.extend(initializers)
    return copy


def _give_zero_states(graph: onnx.GraphProto, shape: tuple[int, ...]) -> None:
    """Where the operator is given no state to start from: a function's input cannot be left out."""
    graph.initializer.append(helper.make_tensor("state_shape", TensorProto.INT64, [len(shape)], shape))
    without = [node for node in graph.node if node.op_type == OPERATOR and not node.input[_STATE]]
    for node in without:
        node.input[_STATE] = "no_state"
    nodes = [
        helper.make_node("Shape", ["input_ids"], ["batch_shape"], start=0, end=1),
        helper.make_node("Concat", ["batch_shape", "state_shape"], ["no_state_shape"], axis=0),
        helper.make_node("ConstantOfShape", ["no_state_shape"], ["no_state"]),
    ]
    for i, node in enumerate(nodes):
        graph.node.insert(i, node)


def _function(heads: int, size: int, opset: int) -> onnx.FunctionProto:
    batch, length = _EXAMPLE
    width = size // heads
    tokens, number = (batch, length, size), (batch, length, heads)
    shapes = {"query": tokens, "key": tokens, "value": tokens, "state": (batch, heads, width, width)}
    inputs = {name: torch.zeros(shape) for name, shape in (shapes | {"log_decay": number, "beta": number}).items()}
    dynamic = {name: {0: "batch", 1: "length"} for name in inputs} | {"state": {0: "batch"}}
    program = torch.onnx.export(
        _DeltaRule(heads).eval(),
        kwargs=inputs,
        dynamo=True,
        opset_version=opset,
        dynamic_shapes=dynamic,
        input_names=list(inputs),
        verbose=False,
    )
    assert program is not None  # with `dynamo`
    graph = program.model_proto.graph
    # A function has no initialisers: they become constants.
    constants = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in graph.initializer]
    return helper.make_function(
        _DOMAIN,
        OPERATOR,
        [value.name for value in graph.input],
        [value.name for value in graph.output],
        [*constants, *graph.node],
        program.model_proto.opset_import,
    )


def _opset(model: onnx.ModelProto) -> int:
    return next(opset.version for opset in model.opset_import if opset.domain == "")
