"""Layer normalisation in plain operators: where products are quick, it is what ONNX Runtime spends its time on.

Its own kernel goes number by number. Mean, squares and the rest are vectorised, but each is one more call: that pays
beside 8-bit products and for many tokens, not beside products in float32.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper


def with_plain_norms(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a graph in which each LayerNormalization is made of simpler operators.

    With c the deviations of n numbers from their mean: c / sqrt(sum c^2 + n eps) * (sqrt(n) weight) + bias.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    graph.initializer.append(numpy_helper.from_array(np.array([-1]), "last_axis"))
    nodes = []
    for node in graph.node:
        if node.op_type != "LayerNormalization":
            nodes.append(node)
            continue
        (x, weight, bias), (y,) = node.input, node.output[:1]
        scale = numpy_helper.to_array(tensors[weight])
        eps = next(a.f for a in node.attribute if a.name == "epsilon") * scale.size
        constants = {"eps": np.array(eps, np.float32), "weight": scale * np.sqrt(scale.size, dtype=np.float32)}
        for name, value in constants.items():
            graph.initializer.append(numpy_helper.from_array(value, f"{y}_{name}"))
        nodes += [
            helper.make_node("ReduceMean", [x, "last_axis"], [f"{y}_mean"]),
            helper.make_node("Sub", [x, f"{y}_mean"], [f"{y}_deviation"]),
            helper.make_node("ReduceSumSquare", [f"{y}_deviation", "last_axis"], [f"{y}_square"]),
            helper.make_node("Add", [f"{y}_square", f"{y}_eps"], [f"{y}_square_eps"]),
            helper.make_node("Sqrt", [f"{y}_square_eps"], [f"{y}_norm"]),
            helper.make_node("Div", [f"{y}_deviation", f"{y}_norm"], [f"{y}_unit"]),
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
