"""Shapes that onnx's inference cannot follow, because they hold products of symbols or are partly known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from rewriters import targets
from rewriters.evaluate import slices
from rewriters.inference import Types
from rewriters.symbols import Dim, Unknown, product

Small = Callable[[str], NDArray[Any] | None]
"""A small constant, or the known parts of a shape; None when nothing is known."""


def refine(node: onnx.NodeProto, attributes: Mapping[str, Any], types: Types, small: Small) -> None:
    """Record a better shape for the output of `node` where there is one."""
    op = node.op_type
    if op not in ("Reshape", "Expand", "ConstantOfShape", "Resize", "Slice", "Flatten", "Tile"):
        return
    source, result = node.input[0], node.output[0]
    shape, element = types.shape(source), types.element(source)
    output: Any = None
    second = small(node.input[1]) if len(node.input) > 1 else None
    if op == "Reshape" and second is not None:
        _, output = targets.reshape(shape, second, bool(attributes.get("allowzero", 0)))
    elif op == "Expand" and second is not None:
        _, output = targets.expand(shape, second)
    elif op == "ConstantOfShape" and small(source) is not None:
        output, element = small(source), types.element(result)
    elif op == "Resize" and "axes" not in attributes:
        output = _resized(node, shape, types, small)
    elif op == "Tile" and shape is not None and second is not None and len(second) == len(shape):
        output = [have * times for have, times in zip(shape, second.astype(object), strict=True)]
    elif op == "Flatten" and shape is not None:
        axis = int(attributes.get("axis", 1))
        axis = axis + len(shape) if axis < 0 else axis
        output = [product(shape[:axis]), product(shape[axis:])]
    elif op == "Slice" and shape is not None:
        output = _sliced(node, attributes, shape, small)
    if output is not None and element:
        types.set_shape(result, element, [v.item() if isinstance(v, np.generic) else v for v in output])


def _resized(node: onnx.NodeProto, shape: Any, types: Types, small: Small) -> Any:
    """The shape after a Resize to known sizes, or by scales that leave what is not known; or None."""
    if len(node.input) > 3 and node.input[3]:
        return small(node.input[3])
    scales = small(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    known = types.shape(node.output[0])
    if scales is None or shape is None or known is None or len(scales) != len(shape):
        return None
    return [
        have if isinstance(have, Dim) and scale == 1 else now
        for have, now, scale in zip(shape, known, scales, strict=True)
    ]


def _sliced(node: onnx.NodeProto, attributes: Mapping[str, Any], shape: Any, small: Small) -> Any:
    """The shape after a Slice that leaves whole axes, or takes from known ones; or None."""
    try:
        inputs = [small(n) if n else None for n in node.input]
        if any(n and v is None for n, v in zip(node.input[1:], inputs[1:], strict=True)):
            return None
        output = list(shape)
        for axis, window in slices(attributes, inputs, len(shape)).items():
            if not isinstance(shape[axis], Dim):
                output[axis] = len(range(*window.indices(shape[axis])))
            elif window.start != 0 or window.step != 1 or window.stop < 2**31 - 1:
                return None
        return output
    except (Unknown, ValueError):
        return None
