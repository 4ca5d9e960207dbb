"""A batch that the file fixes, made free: `[1, 3, 224, 224]` becomes `[batch, 3, 224, 224]`.

What is written here is a proposal, as only running it can show that the samples of a batch do not meet:

    inputs and outputs      the first dimension is the symbol
    Reshape to [1, a, b]    to [-1, a, b]: the batch is what varies slowest, so it is what is left over
    Reshape to [1, -1, b]   to [0, -1, b]: the first dimension stays what it is
    everything between      is forgotten, and inferred anew
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from rewriters.base import Refusal

SYMBOL = "batch"


def free_batch(model: onnx.ModelProto) -> onnx.ModelProto | Refusal:
    """A copy of `model` that takes any number of samples, or why its declarations alone rule that out.

    All inputs begin with one fixed size, and so do all outputs whose shape the file tells.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    sizes = {value.name: _first(value) for value in inputs}
    size = next(iter(sizes.values()), None)
    for name, own in sizes.items():
        if own is None or own != size:
            return Refusal(f"input '{name}' begins with {own or 'no fixed size'}, another with {size}", name)
    for value in graph.output:
        own = _first(value)
        if value.type.tensor_type.HasField("shape") and own != size:
            return Refusal(
                f"output '{value.name}' begins with {own or 'no fixed size'}, not with {size}", value.name
            )
    for value in (*inputs, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if dims:
            dims[0].dim_param = SYMBOL
    del graph.value_info[:]
    _free_reshapes(graph, size)
    return made


def _first(value: onnx.ValueInfoProto) -> int | None:
    """The fixed size of the first dimension, None where there is none."""
    dims = value.type.tensor_type.shape.dim
    return int(dims[0].dim_value) or None if dims and dims[0].HasField("dim_value") else None


def _free_reshapes(graph: onnx.GraphProto, size: int | None) -> None:
    constants = _constants(graph)
    taken = {tensor.name for tensor in graph.initializer}
    taken |= {name for node in graph.node for name in (*node.input, *node.output)}
    for node in graph.node:
        if node.op_type != "Reshape" or len(node.input) < 2 or node.input[1] not in constants:
            continue
        target = constants[node.input[1]].copy()
        if target.ndim != 1 or not target.size:
            continue
        if -1 not in target:
            target[0] = -1
        elif target[0] == size:
            target[0] = 0
        else:
            continue
        name = f"{node.output[0]}_any_batch"
        while name in taken:
            name += "_"
        taken.add(name)
        graph.initializer.append(numpy_helper.from_array(target, name))
        node.input[1] = name


def _constants(graph: onnx.GraphProto) -> Mapping[str, NDArray[np.int64]]:
    """Whole-number constants by name, initializers and Constant nodes, small ones only."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            tensors.update((node.output[0], a.t) for a in node.attribute if a.name == "value")
    return {
        name: numpy_helper.to_array(tensor)
        for name, tensor in tensors.items()
        if tensor.data_type == onnx.TensorProto.INT64 and len(tensor.dims) == 1 and tensor.dims[0] <= 8
    }
