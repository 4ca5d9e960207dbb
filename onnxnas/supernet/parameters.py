"""Which initializers are trained, which are only carried.

An ONNX file does not say which of its float constants are weights: the exponent of a Pow, the bounds of a
Clip or an attention mask are initializers too. A float initializer is trained when it has more than one
value, all moderate, and some node reads it where weights are read (`WEIGHT_INPUTS`). Everything else stays
as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from onnxnas.types import Node

_ANY = frozenset(range(64))
WEIGHT_INPUTS: Mapping[str, frozenset[int]] = {
    "Conv": frozenset({1, 2}),
    "ConvTranspose": frozenset({1, 2}),
    "Gemm": frozenset({0, 1, 2}),
    "MatMul": frozenset({0, 1}),
    "Einsum": _ANY,
    "BatchNormalization": frozenset({1, 2}),
    "LayerNormalization": frozenset({1, 2}),
    "SimplifiedLayerNormalization": frozenset({1, 2}),
    "RMSNormalization": frozenset({1}),
    "InstanceNormalization": frozenset({1, 2}),
    "GroupNormalization": frozenset({1, 2}),
    "PRelu": frozenset({1}),
    "BiasGelu": frozenset({1}),
    "FastGelu": frozenset({1}),
    "Gather": frozenset({0}),
    "Add": _ANY,
    "Sub": _ANY,
    "Mul": _ANY,
    "Div": _ANY,
    "Concat": _ANY,
    "Expand": frozenset({0}),
    "LSTM": frozenset({1, 2, 3}),
    "GRU": frozenset({1, 2, 3}),
    "RNN": frozenset({1, 2, 3}),
}
_ELEMENTWISE = frozenset({"Add", "Sub", "Mul", "Div"})
_NORMS = frozenset(
    {
        "BatchNormalization",
        "LayerNormalization",
        "SimplifiedLayerNormalization",
        "RMSNormalization",
        "InstanceNormalization",
        "GroupNormalization",
    }
)
_MODERATE = 1e4


def is_float(array: NDArray[np.generic]) -> bool:
    """Whether the array is of floating point numbers that torch computes with."""
    return array.dtype in (np.float32, np.float16, np.float64)


def trainable(
    nodes: Iterable[Node], initializers: Mapping[str, NDArray[np.generic]], inputs: Iterable[str]
) -> frozenset[str]:
    """Names of the initializers to train. `inputs` are the graph's real inputs.

    A constant added to or multiplied with an input is the input's normalisation, not a weight.
    """
    real = frozenset(inputs)
    found: set[str] = set()
    pinned: set[str] = set()
    for node in nodes:
        weighty = WEIGHT_INPUTS.get(node.op_type, frozenset())
        preprocessing = node.op_type in _ELEMENTWISE and any(name in real for name in node.inputs)
        for index, name in enumerate(node.inputs):
            if name not in initializers:
                continue
            if preprocessing or (node.op_type == "BatchNormalization" and index >= 3):
                pinned.add(name)
            elif index in weighty and _moderate(initializers[name]):
                found.add(name)
    return frozenset(found - pinned)


def undecayed(nodes: Iterable[Node], initializers: Mapping[str, NDArray[np.generic]]) -> frozenset[str]:
    """Names of initializers that weight decay must leave alone: biases, norms, anything with one long axis."""
    names = {name for name, value in initializers.items() if sum(extent > 1 for extent in value.shape) <= 1}
    for node in nodes:
        if node.op_type in _NORMS:
            names.update(name for name in node.inputs[1:] if name in initializers)
    return frozenset(names)


def _moderate(array: NDArray[np.generic]) -> bool:
    if array.size < 2 or not is_float(array):
        return False
    values = np.asarray(array, dtype=np.float64)
    return bool(np.isfinite(values).all() and np.abs(values).max() < _MODERATE)
