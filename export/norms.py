"""Layer normalisation in plain operators: ONNX Runtime's own kernel on the CPU is not vectorised.

Mean, norm and the rest are vectorised, though each is one more call: for one short text that comes to the same.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

MOST_EPS = 1e-9  # BERT's is 1e-12; one so small changes nothing in float32 beside any layer's variance


def with_plain_norms(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a graph in which each LayerNormalization is made of simpler operators.

    With c the deviations of n numbers from their mean: c / max(|c|, sqrt(n eps)) * (sqrt(n) weight) + bias. For a small
    eps that differs from c / sqrt(|c|^2 + n eps) only where the numbers are all but equal, which no layer's are; norms
    with an eps over `MOST_EPS` are left as they are.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    graph.initializer.append(numpy_helper.from_array(np.array([-1]), "last_axis"))
    nodes = []
    for node in graph.node:
        if node.op_type != "LayerNormalization" or (eps := _epsilon(node)) > MOST_EPS:
            nodes.append(node)
            continue
        (x, weight, bias), (y,) = node.input, node.output[:1]
        scale = numpy_helper.to_array(tensors[weight])
        root = np.sqrt(scale.size, dtype=np.float32)
        constants = {"least": root * np.sqrt(np.float32(eps)), "weight": root * scale}
        for name, value in constants.items():
            graph.initializer.append(numpy_helper.from_array(np.asarray(value), f"{y}_{name}"))
        nodes += [
            helper.make_node("ReduceMean", [x, "last_axis"], [f"{y}_mean"]),
            helper.make_node("Sub", [x, f"{y}_mean"], [f"{y}_deviation"]),
            helper.make_node("ReduceL2", [f"{y}_deviation", "last_axis"], [f"{y}_norm"]),
            helper.make_node("Clip", [f"{y}_norm", f"{y}_least"], [f"{y}_size"]),
            helper.make_node("Div", [f"{y}_deviation", f"{y}_size"], [f"{y}_unit"]),
            helper.make_node("Mul", [f"{y}_unit", f"{y}_weight"], [f"{y}_scaled"]),
            helper.make_node("Add", [f"{y}_scaled", bias], [y]),
        ]
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return copy


def _epsilon(norm: onnx.NodeProto) -> float:
    return next(attribute.f for attribute in norm.attribute if attribute.name == "epsilon")
