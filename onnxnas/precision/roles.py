"""What the runtimes compute with numbers of 8 bits.

The operators are those of ONNX Runtime's CPU provider (QLinearConv, QGemm, QLinearAdd and so on, and what it does to
integers as they are). A runtime that lacks one computes it in floats between rounded tensors: the same numbers, slower.

weighted   multiplies by a constant, which has a scale for each output channel
computed   makes 8-bit numbers of 8-bit numbers
moved      hands on its first input's numbers, or some of them
clamped    limits what is before it, so that rounding can wait until after it
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from onnxnas.types import Node

Constants = Mapping[int, NDArray[Any]]


@dataclass(frozen=True)
class Role:
    """What a node is; `axis` is that of a weight (input 1) along which every position has a scale."""

    kind: Literal["weighted", "computed", "moved", "clamped"]
    axis: int = 0


def role(node: Node, constants: Constants) -> Role | None:
    """What `node` is, whose constant inputs are these by position; None when it computes in floats."""
    find = _ROLES.get(node.op_type)
    return None if find is None or node.domain else find(node, constants)


def sums_over(node: Node, constants: Constants) -> tuple[int, int] | None:
    """The axis of the first input that a product with a constant weight sums over, and its length; None for others."""
    if node.domain or 1 not in constants or 0 in constants:
        return None
    shape, attributes = constants[1].shape, node.attributes
    if node.op_type == "Conv":
        return 1, shape[1] * int(attributes.get("group", 1))
    if node.op_type == "ConvTranspose":
        return 1, shape[0]
    if node.op_type == "Gemm":
        return 0 if attributes.get("transA", 0) else 1, shape[1 if attributes.get("transB", 0) else 0]
    return (-1, shape[0]) if node.op_type == "MatMul" and len(shape) == 2 else None


def _conv(node: Node, constants: Constants) -> Role | None:
    return Role("weighted", 0) if _weights(node, constants) else None


def _gemm(node: Node, constants: Constants) -> Role | None:
    """a @ b + c without factors, c a vector; a is not transposed."""
    attributes = node.attributes
    plain = attributes.get("alpha", 1.0) == attributes.get("beta", 1.0) == 1.0
    plain = plain and not attributes.get("transA", 0)
    if not plain or not _weights(node, constants):
        return None
    axis = 0 if attributes.get("transB", 0) else 1
    fits = 2 not in constants or constants[2].shape == (constants[1].shape[axis],)
    return Role("weighted", axis) if fits else None


def _matmul(node: Node, constants: Constants) -> Role | None:
    """By a constant matrix; a product of two activations stays in floats: attention is sensitive to rounding."""
    return Role("weighted", 1) if _weights(node, constants) and constants[1].ndim == 2 else None


def _weights(node: Node, constants: Constants) -> bool:
    """Whether the weight and the bias, if any, are constants of 32-bit floats, and the first input is not."""
    biased = len(node.inputs) > 2 and bool(node.inputs[2])
    expected = {1, 2} if biased else {1}
    return constants.keys() == expected and all(c.dtype == np.float32 for c in constants.values())


def _computed(node: Node, constants: Constants) -> Role | None:
    """Of activations only."""
    return None if constants else Role("computed")


def _moved(node: Node, constants: Constants) -> Role | None:
    return None if 0 in constants else Role("moved")


def _pad(node: Node, constants: Constants) -> Role | None:
    """By zeros, which every range has, or by what is there."""
    known = len(node.inputs) < 3 or not node.inputs[2] or 2 in constants
    value = node.attributes.get("value", constants.get(2, 0.0))
    repeats = node.attributes.get("mode", "constant") != "constant"
    return Role("moved") if repeats or (known and not np.any(value)) else None


def _clamped(node: Node, constants: Constants) -> Role | None:
    return Role("clamped")


_ROLES: Mapping[str, Callable[[Node, Constants], Role | None]] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Pad": _pad,
    **dict.fromkeys(("Relu", "Clip"), _clamped),
    **dict.fromkeys(
        ("Add", "Mul", "Sigmoid", "LeakyRelu", "GlobalAveragePool", "AveragePool", "Concat"), _computed
    ),
    **dict.fromkeys(("MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice"), _moved),
}
