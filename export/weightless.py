"""A graph without its weights, which are given to it by the names that they have in the model.

What export has made of a weight (transposed it, scaled it, rounded it to 8 bits) becomes nodes again; ONNX Runtime
computes them once, when a session begins.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_LOCATION = "model.safetensors"  # never read: the weights are given with the session
_ROWS = 2  # of a matrix whose rows a graph takes apart: token types, and the factors of states
_MOST = 64  # of a quantized weight
_QUANTIZED, _SCALE, _ZERO = "_quantized", "_scale", "_zero_point"  # what the quantizer puts behind a weight's name


class _Nodes:
    """Nodes that make constants, and the small constants that they need."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []

    def add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(self, value: np.ndarray, name: str) -> str:
        self.constants.append(numpy_helper.from_array(value, name))
        return name


def weightless(graph: onnx.ModelProto, float_graph: onnx.ModelProto, weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    """A copy of a graph whose weights are external initialisers, called as in the model's state dict.

    Args:
        graph: of a block, in float32 or quantized.
        float_graph: what it was quantized from; itself if it is not quantized.
        weights: of the model that the graph was made from, no two of which may be equal.

    Raises:
        ValueError: a constant of the graph is none that is known here to be made of a weight.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    inputs = {value.name for value in copy.graph.input}
    made, used = _Nodes(), set()
    kept = []
    floats = {tensor.name: numpy_helper.to_array(tensor) for tensor in float_graph.graph.initializer}
    for tensor in copy.graph.initializer:
        name = tensor.name
        source = name.removesuffix(_QUANTIZED).removesuffix(_SCALE).removesuffix(_ZERO)
        value = floats.get(name if name in floats else source)
        if value is None or value.dtype != np.float32 or value.size < 2 or name in inputs or np.isinf(value).any():
            kept.append(tensor)  # a constant of the graph's own
        elif name in floats:
            used.add(_make(made, name, value, weights))
        elif name.endswith(_QUANTIZED):
            used.add(_make(made, source, value, weights))
            _quantize(made, source, numpy_helper.to_array(tensor).dtype)
        elif name.endswith(_ZERO) and tensor.data_type == TensorProto.INT8:
            kept.append(tensor)  # zeros, whatever the weights
    nodes = [*made.nodes, *copy.graph.node]
    del copy.graph.node[:], copy.graph.initializer[:], copy.graph.value_info[:]
    copy.graph.node.extend(nodes)
    copy.graph.initializer.extend([*kept, *made.constants, *(_external(name, weights[name]) for name in sorted(used))])
    for node in copy.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del copy.metadata_props[:]
    return copy


def _make(made: _Nodes, name: str, value: np.ndarray, weights: dict[str, np.ndarray]) -> str:
    """Nodes that make a constant of the weight that it came from, whose name is returned."""
    for weight, tensor in weights.items():
        if tensor.shape == value.shape and np.array_equal(tensor, value):
            made.add("Identity", [weight], name)
        elif tensor.ndim == 2 and tensor.T.shape == value.shape and np.array_equal(tensor.T, value):
            made.add("Transpose", [weight], name, perm=[1, 0])
        elif (row := _row(tensor, value)) is not None:
            found = made.add("Gather", [weight, made.constant(np.array(row), f"{name}_row")], f"{name}_flat_row")
            made.add("Reshape", [found, made.constant(np.array(value.shape), f"{name}_shape")], name)
        elif tensor.shape == value.shape and np.allclose(tensor * np.sqrt(np.float32(value.size)), value, rtol=1e-6):
            root = made.constant(np.sqrt(np.float32(value.size)), f"{name}_root")
            made.add("Mul", [weight, root], name)
        elif tensor.ndim == 1 and value.ndim == 1 and np.array_equal(tensor.repeat(value.size // tensor.size), value):
            shape = made.constant(np.array([tensor.size, value.size // tensor.size]), f"{name}_heads")
            column = made.add("Unsqueeze", [weight, made.constant(np.array([1]), f"{name}_axis")], f"{name}_column")
            spread = made.add("Expand", [column, shape], f"{name}_spread")
            made.add("Reshape", [spread, made.constant(np.array([-1]), f"{name}_flat")], name)
        else:
            continue
        return weight
    raise ValueError(f"the graph's constant {name} {value.shape} is made of no weight in a way that is known")


def _row(tensor: np.ndarray, value: np.ndarray) -> int | None:
    """The row of a matrix, of two at most, that a constant is."""
    if tensor.ndim == 2 and tensor.shape[0] <= _ROWS and tensor.shape[1] == value.size == max(value.shape):
        for row, numbers in enumerate(tensor):
            if np.array_equal(numbers, value.ravel()):
                return row
    return None


def _quantize(made: _Nodes, name: str, dtype: np.dtype) -> None:
    """Nodes that round a constant as ONNX Runtime's quantizer does, and make its scale and zero point."""
    if dtype == np.int8:  # of a product: symmetric, a scale for each output channel
        size = made.add("Abs", [name], f"{name}_abs")
        most = made.add("ReduceMax", [size, made.constant(np.array([0]), f"{name}_rows")], f"{name}_most", keepdims=0)
        made.add("Div", [most, made.constant(np.array(_MOST, np.float32), f"{name}_steps")], name + _SCALE)
    else:  # of a table: one scale for all
        zero = made.constant(np.array(0, np.float32), f"{name}_zero")
        least, most = (made.add(f"Reduce{which}", [name], f"{name}_{which}", keepdims=0) for which in ("Min", "Max"))
        least, most = made.add("Min", [least, zero], f"{name}_least"), made.add("Max", [most, zero], f"{name}_most")
        span = made.add("Sub", [most, least], f"{name}_span")
        made.add("Div", [span, made.constant(np.array(255, np.float32), f"{name}_steps")], name + _SCALE)
        steps = made.add("Div", [least, name + _SCALE], f"{name}_below")
        shift = made.add("Round", [made.add("Neg", [steps], f"{name}_shift")], f"{name}_rounded")
        made.add("Cast", [shift], name + _ZERO, to=TensorProto.UINT8)
    axis = {"axis": 1} if dtype == np.int8 else {}
    made.add("QuantizeLinear", [name, name + _SCALE, name + _ZERO], name + _QUANTIZED, **axis)


def _external(name: str, value: np.ndarray) -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=value.shape)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=_LOCATION)
    return tensor
