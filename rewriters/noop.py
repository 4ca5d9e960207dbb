"""Nodes that change nothing: which input is their output, if so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from rewriters.inference import Types

Value = Callable[[str], "NDArray[Any] | None"]

_ALWAYS = frozenset({"Identity"})
_ALONE = frozenset({"Concat", "Sum", "Max", "Min", "Mean"})
_SAME_SHAPE = frozenset({"Reshape", "Flatten", "Expand", "Squeeze", "Unsqueeze", "Tile", "Slice", "Split"})


def passes_through(
    node: onnx.NodeProto, attributes: Mapping[str, Any], types: Types, value: Value, opset: int
) -> bool:
    """Whether the first output of `node` is its first input, and nothing else of it is used.

    `value` gives the number behind a tensor's name if it is a constant, else None. Types of the node's
    inputs and outputs must have been recorded.
    """
    if node.domain not in ("", "ai.onnx") or not node.input or not node.input[0]:
        return False
    if any(node.output[1:]):
        return False
    op = node.op_type
    if op in _ALWAYS:
        return True
    if op in _ALONE:
        return len(node.input) == 1
    source, result = node.input[0], node.output[0]
    if op == "Dropout":
        return _idle_dropout(node, attributes, value, opset)
    if op == "Cast":
        return types.element(source) == attributes.get("to") != 0
    if op == "Transpose":
        perm = attributes.get("perm")
        return perm is not None and list(perm) == list(range(len(perm)))
    if op == "Pad":
        return _no_pads(node, attributes, value)
    if op in _SAME_SHAPE:
        shape = types.shape(source)
        if shape is None or shape != types.shape(result):
            return False
        return op != "Slice" or _forwards(node, value)
    return False


def leave_out_empty(node: onnx.NodeProto, attributes: Mapping[str, Any], types: Types) -> bool:
    """Whether operands without any length along the axis of a Concat were taken out of it, in place."""
    if node.op_type != "Concat" or node.domain:
        return False
    shapes = [types.shape(name) for name in node.input]
    axis = int(attributes.get("axis", 1))
    kept = [n for n, s in zip(node.input, shapes, strict=True) if not s or s[axis] != 0]
    if not kept or len(kept) == len(node.input):
        return False
    del node.input[:]
    node.input.extend(kept)
    return True


def _idle_dropout(node: onnx.NodeProto, attributes: Mapping[str, Any], value: Value, opset: int) -> bool:
    if opset < 7:
        return bool(attributes.get("is_test", 0))
    if opset < 12 or len(node.input) < 3 or not node.input[2]:
        return True
    mode = value(node.input[2])
    return mode is not None and not bool(np.any(mode))


def _no_pads(node: onnx.NodeProto, attributes: Mapping[str, Any], value: Value) -> bool:
    pads = attributes.get("pads", attributes.get("paddings"))
    if pads is None and len(node.input) > 1:
        pads = value(node.input[1])
    return pads is not None and not np.any(np.asarray(pads) != 0)


def _forwards(node: onnx.NodeProto, value: Value) -> bool:
    if len(node.input) < 5 or not node.input[4]:
        return True
    steps = value(node.input[4])
    return steps is not None and bool(np.all(steps == 1))
