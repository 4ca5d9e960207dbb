"""One node of a model as a model of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from onnxnas.graph.model import Graph
from onnxnas.types import Shape

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class SingleNode:
    """`content` is a serialised model, `feeds` random inputs for it.

    Equal `signature`s take equally long: operator, attributes and shapes are alike; names and values may differ.
    """

    content: bytes
    feeds: Mapping[str, Array]
    signature: str


def single_node(
    model: onnx.ModelProto, whole: Graph, name: str, shapes: tuple[Shape | None, ...]
) -> SingleNode | None:
    """Node `name` of `model`, which was rewritten from `whole`; `shapes` are of its inputs in `model`.

    Its constants come with it. None where it is gone, or an input's shape or type is not known, or an input is not
    of floats.
    """
    node = next((n for n in model.graph.node if n.name == name), None)
    if node is None:
        return None
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    before = whole.node(name)
    rng = np.random.default_rng(0)
    feeds: dict[str, Array] = {}
    for own, original, shape in zip(node.input, before.inputs, shapes, strict=False):
        if own and own not in constants and own not in feeds:
            dtype = whole.tensors[original].dtype
            if shape is None or dtype is None or dtype.kind != "f":
                return None
            feeds[own] = rng.standard_normal(shape).astype(dtype)
    outputs = []
    for own, original in zip(node.output, before.outputs, strict=False):
        dtype = whole.tensors[original].dtype if original else None
        if own and dtype is None:
            return None
        if own and dtype is not None:
            outputs.append(helper.make_tensor_value_info(own, helper.np_dtype_to_tensor_dtype(dtype), None))
    body = helper.make_graph(
        [node],
        "layer",
        [
            helper.make_tensor_value_info(own, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            for own, value in feeds.items()
        ],
        outputs,
        [constants[own] for own in dict.fromkeys(node.input) if own in constants],
    )
    made = helper.make_model(body, opset_imports=model.opset_import, ir_version=model.ir_version)
    return SingleNode(made.SerializeToString(), feeds, _signature(made, feeds))


def _signature(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> str:
    (node,) = model.graph.node
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    shapes |= {name: array.shape for name, array in feeds.items()}
    attributes = sorted(attribute.SerializeToString() for attribute in node.attribute)
    return repr((node.domain, node.op_type, attributes, [shapes.get(name) for name in node.input]))
