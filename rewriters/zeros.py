"""Tensors that are all zero, whatever their shape; and recurrent layers that need not be given them.

A first state of zeros is what RNN, GRU and LSTM start from anyway. Exporters make it for a batch that is known
at run time only, or write it down for the one that they have seen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

_MOVED = frozenset(
    ["Cast", "Expand", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"]
)  # fmt: skip
_STATES = {"RNN": (5,), "GRU": (5,), "LSTM": (5, 6)}  # inputs


class Zeros:
    """What is known to be zero among the tensors of the nodes that were shown to `visit`, in order.

    `constant` gives the value behind a name, or None.
    """

    def __init__(self, constant: Callable[[str], NDArray[Any] | None]) -> None:
        self._constant = constant
        self._known: set[str] = set()

    def visit(self, node: onnx.NodeProto) -> int:
        """Remember what `node` says; take zeros from it where it has them by default. How many were taken."""
        if node.domain:
            return 0
        zero = node.op_type in _MOVED and self._is_zero(node.input[0])
        zero |= node.op_type == "Concat" and all(self._is_zero(name) for name in node.input)
        zero |= node.op_type == "ConstantOfShape" and not _filled(node)
        if zero:
            self._known.update(node.output)
        idle = [
            i for i in _STATES.get(node.op_type, ()) if i < len(node.input) and self._is_zero(node.input[i])
        ]
        for index in idle:
            node.input[index] = ""
        while idle and not node.input[-1]:
            del node.input[-1]
        return len(idle)

    def _is_zero(self, name: str) -> bool:
        if name in self._known:
            return True
        value = self._constant(name) if name else None
        return value is not None and value.dtype.kind == "f" and not value.any()


def _filled(node: onnx.NodeProto) -> bool:
    """Whether a ConstantOfShape gives anything but floating-point zeros."""
    values = [onnx.numpy_helper.to_array(a.t) for a in node.attribute if a.name == "value"]
    return any(value.dtype.kind != "f" or bool(np.any(value)) for value in values)
