"""Smaller (or reordered) initializers, and the constants and attributes that must agree with them.

Keep on axis a with indices p:  w'[..., i, ...] = w[..., p[i], ...].  Keeping a permutation of all indices
on every initializer of a width group leaves the network's function as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from rewriters.base import Refusal
from rewriters.edits import Keep, ReplaceConstant, SetAttribute, SetInitializer
from rewriters.surgery import Surgery


def keep(surgery: Surgery, edits: Sequence[Keep]) -> list[str] | Refusal:
    """Slice initializers. Refused: not an initializer, a wrong axis or index, one axis sliced in two ways."""
    done = []
    for edit in edits:
        tensor = surgery.tensor(edit.tensor)
        if tensor is None or not surgery.is_constant(tensor):
            return Refusal(
                f"keep: '{edit.tensor}' is not an initializer with its values at hand", edit.tensor
            )
        culprit = tensor.outputs[0].name if tensor.outputs else edit.tensor
        shape, indices = surgery.form(tensor)[0], np.asarray(edit.indices)
        if not -len(shape) <= edit.axis < len(shape):
            return Refusal(f"keep: '{edit.tensor}' of shape {shape} has no axis {edit.axis}", culprit)
        axis = edit.axis % len(shape)
        if indices.ndim != 1 or indices.size == 0 or not np.issubdtype(indices.dtype, np.integer):
            return Refusal(f"keep: indices for '{edit.tensor}' must be a non-empty row of integers", culprit)
        size, before = surgery.kept.get((edit.tensor, axis), (shape[axis], None))
        if before is not None:
            if not np.array_equal(before, indices):
                return Refusal(f"keep: axis {axis} of '{edit.tensor}' is sliced in two ways", culprit)
        else:
            if not _distinct(indices, size):
                return Refusal(
                    f"keep: indices for axis {axis} of '{edit.tensor}' must differ and lie in 0..{size - 1}",
                    culprit,
                )
            surgery.kept[(edit.tensor, axis)] = (size, indices)
            surgery.keep(tensor, axis, indices)
        done.append(f"kept {indices.size} of {size} on axis {axis} of '{edit.tensor}'")
    return done


def _distinct(indices: NDArray[np.integer[Any]], size: int) -> bool:
    """Whether all differ and lie in 0..size - 1."""
    if (np.diff(indices) > 0).all():
        return bool(indices[0] >= 0 and indices[-1] < size)
    return bool(indices.min() >= 0 and indices.max() < size and np.unique(indices).size == indices.size)


def set_attribute(surgery: Surgery, edits: Sequence[SetAttribute]) -> list[str] | Refusal:
    """Set attributes. Refused: an unknown node, an attribute that its operator does not have."""
    done = []
    for edit in edits:
        node = surgery.node(edit.node)
        if node is None:
            return Refusal(f"set attribute: no single node is called '{edit.node}'", edit.node)
        value = edit.value
        try:
            surgery.set_attribute(node, edit.name, list(value) if isinstance(value, tuple) else value)
        except (ValueError, TypeError) as problem:
            return Refusal(f"set attribute '{edit.name}' to {value!r}: {problem}", edit.node)
        done.append(f"set {edit.name}={value} on {node.op} '{edit.node}'")
    return done


def replace_constant(surgery: Surgery, edits: Sequence[ReplaceConstant]) -> list[str] | Refusal:
    """Give node inputs constants of their own. Refused: an unknown node, no such input."""
    done = []
    for edit in edits:
        node = surgery.node(edit.node)
        if node is None:
            return Refusal(f"replace constant: no single node is called '{edit.node}'", edit.node)
        if not 0 <= edit.input <= len(node.inputs):
            return Refusal(
                f"replace constant: {node.op} has {len(node.inputs)} inputs, not number {edit.input}",
                edit.node,
            )
        if edit.input == len(node.inputs):
            node.inputs.append(gs.Variable.empty())
        surgery.own(node, edit.input, np.asarray(edit.value))
        done.append(f"gave input {edit.input} of {node.op} '{edit.node}' a new constant")
    return done


def set_initializer(surgery: Surgery, edits: Sequence[SetInitializer]) -> list[str] | Refusal:
    """Set final values; tensors that other edits made unused are passed over.

    Refused: never an initializer, folded away, another shape, numbers of another kind.
    """
    done = []
    for edit in edits:
        tensor = surgery.tensor(edit.tensor)
        if tensor is None or not surgery.is_initializer(tensor):
            return Refusal(f"set initializer: there is no initializer '{edit.tensor}'", edit.tensor)
        if edit.tensor in surgery.consumed:
            return Refusal(
                f"set initializer: '{edit.tensor}' was folded into another; set it before folding",
                edit.tensor,
            )
        culprit = tensor.outputs[0].name if tensor.outputs else edit.tensor
        value = np.asarray(edit.value)
        shape, known = surgery.form(tensor)
        if value.shape != shape:
            return Refusal(f"set initializer: '{edit.tensor}' has shape {shape}, got {value.shape}", culprit)
        dtype = value.dtype if known is None else known
        if not np.can_cast(value.dtype, dtype, "same_kind"):
            return Refusal(f"set initializer: '{edit.tensor}' is {dtype}, got {value.dtype}", culprit)
        surgery.set_values(tensor, value.astype(dtype, copy=False))
        done.append(f"set '{edit.tensor}'")
    return done
