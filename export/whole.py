"""The graph for other runtimes: it reads texts as a whole, block by block inside.

Other runtimes feed `input_ids` and `attention_mask` of whole texts, and pool the hidden states themselves. So a `Loop`
runs the nodes of the step graph on one block after the other. What the step graph takes as `past_*` and returns as
`present_*` is carried from block to block inside. The weights stay outside of the loop, where each is stored once.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper
from onnx.helper import make_node

_TOKENS = ("input_ids", "attention_mask")
_INSIDE = "block/"  # begins the names of all values inside the loop: none outside may have the same name


def whole(step: onnx.ModelProto, block_size: int) -> onnx.ModelProto:
    """The graph of whole texts, made from the graph of one block.

    Args:
        step: a step graph in any form: from `to_onnx`, `with_plain_norms`, `quantize` or `portable`.
        block_size: number of tokens in a block.

    Returns:
        A graph with the inputs `input_ids` and `attention_mask`, both (batch, length), padded on the right. Its outputs
        are `last_hidden_state` (batch, length, hidden size), without meaning at the pads, and `sentence_embedding`
        (batch, hidden size), unit vectors.
    """
    block = compose.add_prefix_graph(step.graph, _INSIDE, rename_nodes=False, rename_initializers=False)
    shapes = {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim[1:])
        for value in block.input
        if value.name.startswith(f"{_INSIDE}past_")
    }
    hidden = shapes[f"{_INSIDE}past_sum"]
    constants = {"block_size": [block_size], "block_size_less_1": [block_size - 1], "length_axis": [1], "zero": [0]}
    nodes = [
        make_node("Shape", ["input_ids"], ["batch"], end=1),
        make_node("Shape", ["input_ids"], ["length"], start=1),
        make_node("Add", ["length", "block_size_less_1"], ["length_rounded_up"]),
        make_node("Div", ["length_rounded_up", "block_size"], ["blocks_1d"]),
        make_node("Squeeze", ["blocks_1d"], ["blocks"]),
        make_node("SequenceEmpty", [], ["no_hidden_states"]),
    ]
    zeros = {shape: f"zeros_{'_'.join(map(str, shape))}" for shape in shapes.values()}
    for shape, name in zeros.items():
        constants[f"{name}_of_a_text"] = list(shape)
        nodes.append(make_node("Concat", ["batch", f"{name}_of_a_text"], [f"{name}_shape"], axis=0))
        nodes.append(make_node("ConstantOfShape", [f"{name}_shape"], [name]))
    initial = ["no_hidden_states", zeros[hidden], *(zeros[shape] for shape in shapes.values())]
    final = ["hidden_states", "sentence_embedding", *(name.replace(f"{_INSIDE}past", "final") for name in shapes)]
    nodes.append(make_node("Loop", ["blocks", "", *initial], final, body=_body(block, list(shapes))))
    nodes.append(make_node("ConcatFromSequence", ["hidden_states"], ["last_hidden_state"], axis=1))
    weights = [tensor for tensor in block.initializer if tensor.name not in shapes]  # no defaults
    graph = helper.make_graph(
        nodes,
        "lam",
        [helper.make_tensor_value_info(x, TensorProto.INT64, ["batch", "length"]) for x in _TOKENS],
        [
            # The first is what runtimes take that ask for no output by its name.
            helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["batch", "length", *hidden]),
            helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, ["batch", *hidden]),
        ],
        [*weights, *(numpy_helper.from_array(np.array(x, np.int64), name) for name, x in constants.items())],
    )
    return helper.make_model(graph, opset_imports=step.opset_import, ir_version=step.ir_version)


def _body(block: onnx.GraphProto, past: list[str]) -> onnx.GraphProto:
    """What the loop does with a block, which is shorter than `block_size` at the end of the texts.

    Of the block's graph the nodes alone are taken: the weights are found outside, and the lengths that its shapes name
    would be mistaken for the whole texts'.
    """
    begin = [
        make_node("Mul", ["number", "block_size"], ["start"]),
        make_node("Add", ["start", "block_size"], ["end"]),
        *(make_node("Slice", [name, "start", "end", "length_axis"], [_INSIDE + name]) for name in _TOKENS),
    ]
    present = {name: name.replace("past", "present") for name in past}
    end = [
        make_node("SequenceInsert", ["read_before", f"{_INSIDE}last_hidden_state"], ["read"]),
        make_node("Equal", ["number", "zero"], ["first"]),
        *(
            make_node("Where", ["first", present[name.replace("beginning", "state")], name], [present[name]])
            for name in past
            if name.startswith(f"{_INSIDE}past_beginning")
        ),
        make_node("Identity", ["going_on"], ["going_on_again"]),
    ]
    hidden_states = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    return helper.make_graph(
        [*begin, *block.node, *end],
        "block",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            helper.make_tensor_value_info("going_on", TensorProto.BOOL, []),
            helper.make_value_info("read_before", hidden_states),
            *_floats("embedding_before", *past),  # the embedding is carried to come out, nothing reads it
        ],
        [
            helper.make_tensor_value_info("going_on_again", TensorProto.BOOL, []),
            helper.make_value_info("read", hidden_states),
            *_floats(f"{_INSIDE}sentence_embedding", *present.values()),
        ],
    )


def _floats(*names: str) -> list[onnx.ValueInfoProto]:
    return [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
