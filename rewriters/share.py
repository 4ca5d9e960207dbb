"""Initializers of one's own, and names.

Exporters merge initializers of equal values: all the zeros and ones of a network's BatchNormalizations
become one tensor, all the Reshape targets another. Nothing can be sliced as long as they are one. A float
tensor that several nodes share is taken for a tied weight, and stays one, unless all its values are equal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})


def is_merged(tensor: TensorProto | NDArray[Any]) -> bool:
    """Whether users of a shared constant are rather to have their own: not floats, or all values equal."""
    if isinstance(tensor, TensorProto):
        if tensor.data_type not in _FLOATS:
            return True
        if tensor.data_location == TensorProto.EXTERNAL:
            return False
        tensor = numpy_helper.to_array(tensor)
    elif tensor.dtype.kind in "biuSUO":
        return True
    flat = tensor.reshape(-1)
    return flat.size <= 1 or bool(flat[0] == flat[-1] and np.all(flat == flat[0]))


def unshare(
    nodes: Iterable[onnx.NodeProto],
    constants: Mapping[str, TensorProto | NDArray[Any]],
    pinned: frozenset[str],
    taken: set[str],
) -> dict[str, str]:
    """Give each use of a merged constant a name of its own; the new names and what they are copies of.

    The first use keeps the name, unless it is `pinned` (read inside a body).
    """
    used: set[str] = set(pinned)
    merged: dict[str, bool] = {}
    copies: dict[str, str] = {}
    numbers: dict[str, int] = {}
    for node in nodes:
        for index, name in enumerate(node.input):
            if name not in constants:
                continue
            if name not in used:
                used.add(name)
                continue
            if name not in merged:
                merged[name] = is_merged(constants[name])
            if merged[name]:
                copy = fresh(name, taken, numbers)
                copies[copy] = name
                node.input[index] = copy
    return copies


def name_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    """Give every node a name that no other has; the first that has a name keeps it."""
    nodes = list(nodes)
    taken = {node.name for node in nodes}
    numbers: dict[str, int] = {}
    seen: set[str] = set()
    for node in nodes:
        if not node.name or node.name in seen:
            node.name = fresh(node.name or node.op_type, taken, numbers)
        seen.add(node.name)


def fresh(name: str, taken: set[str], numbers: dict[str, int]) -> str:
    """`name` with the next free number of `numbers` behind it; it is taken from now on."""
    number = numbers.get(name, 0) + 1
    while f"{name}_{number}" in taken:
        number += 1
    numbers[name] = number
    taken.add(f"{name}_{number}")
    return f"{name}_{number}"


def unique(name: str, taken: set[str]) -> str:
    """`name`, with a number if it is taken; it is taken from now on."""
    candidate, number = name, 1
    while candidate in taken:
        candidate, number = f"{name}_{number}", number + 1
    taken.add(candidate)
    return candidate
