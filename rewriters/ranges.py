"""A model that tells the least and the greatest value of tensors instead of what it computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from rewriters.parts import Parts
from rewriters.skeleton import strip

_AXES_ARE_INPUT = 18  # the opset from which ReduceMin and ReduceMax read their axes


def with_ranges(parts: Parts, tensors: Sequence[str]) -> Parts:
    """The model of `parts` with other outputs: two for each tensor, (n,) each, the extremes of each of its rows.

    A row is what belongs to one position of the first axis, which mostly is one sample. First those of the least
    values, in the order of `tensors`, then those of the greatest. Tensors have at least one axis.
    """
    out = strip(parts.structure, initializers=False)
    opset = {o.domain or "ai.onnx": o.version for o in out.opset_import}.get("ai.onnx", 1)
    weights = dict(parts.weights)
    taken = {*weights, *(i.name for i in out.graph.input)}
    taken |= {name for node in out.graph.node for name in (*node.output, node.name)}
    axes = _free("range_axes", taken)
    if opset >= _AXES_ARE_INPUT:
        weights[axes] = np.array([1], np.int64)
    del out.graph.output[:]
    found: dict[str, list[str]] = {"ReduceMin": [], "ReduceMax": []}
    for tensor in tensors:
        rows = _free(f"{tensor}_rows", taken)
        out.graph.node.append(onnx.helper.make_node("Flatten", [tensor], [rows], rows, axis=1))
        for op, names in found.items():
            name = _free(f"{tensor}_{op}", taken)
            attributes: dict[str, Any] = {} if opset >= _AXES_ARE_INPUT else {"axes": [1]}
            inputs = [rows, axes] if opset >= _AXES_ARE_INPUT else [rows]
            out.graph.node.append(onnx.helper.make_node(op, inputs, [name], name, keepdims=0, **attributes))
            names.append(name)
    for name in (*found["ReduceMin"], *found["ReduceMax"]):
        out.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None]))
    return Parts(out, weights, parts.read)


def _free(name: str, taken: set[str]) -> str:
    """`name`, with a number if it is taken; it is taken from now on."""
    candidate, number = name, 1
    while candidate in taken:
        candidate, number = f"{name}_{number}", number + 1
    taken.add(candidate)
    return candidate
