"""Concat and Split: labels are laid end to end, or cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxnas.ops.channels import FIXED, Factor, Layout, at
from onnxnas.ops.registry import register
from onnxnas.ops.spec import BatchNorm, Flow, Kept, OpSpec, TorchFunction
from onnxnas.types import Node
from rewriters.edits import Edit, ReplaceConstant, SetAttribute

if TYPE_CHECKING:
    from torch import Tensor

Constants = Mapping[int, NDArray[Any]]


def _concat_flow(flow: Flow, node: Node) -> None:
    shapes = [flow.shape(x) for x in node.inputs]
    known = [s for s in shapes if s is not None]
    if len(known) != len(shapes):
        flow.freeze_all(node, "a shape is unknown")
        return
    rank = len(known[0])
    axis = int(node.attributes["axis"]) % rank
    layouts = [flow.data(x, node) for x in node.inputs]
    parts = [_alone(flow, node, layout, axis) for layout in layouts]
    result = _others(
        flow, node, [tuple(f for f in lay if f is not at(lay, axis)) for lay in parts], rank, axis
    )
    along = [at(layout, axis) for layout in parts]
    if any(f is not None for f in along):
        pieces = [
            np.full(shape[axis], FIXED, np.int64) if f is None else f.ids
            for f, shape in zip(along, known, strict=True)
        ]
        result = (*result, Factor((axis,), np.concatenate(pieces)))
    flow.set(node.outputs[0], result)


def _alone(flow: Flow, node: Node, layout: Layout, axis: int) -> Layout:
    """The factor that covers `axis` made to depend on its outermost axis alone (heads, not head size)."""
    return tuple(
        flow.labels.collapse(f, f.axes[0], node.name) if axis in f.axes and len(f.axes) > 1 else f
        for f in layout
    )


def _others(flow: Flow, node: Node, layouts: Sequence[Layout], rank: int, axis: int) -> Layout:
    """Labels along the other axes: one position of every operand is the same channel."""
    result: list[Factor] = []
    for other in range(rank):
        factors = [at(layout, other) for layout in layouts]
        if other == axis or all(f is None for f in factors):
            continue
        if any(f is None for f in factors):
            for f in factors:
                if f is not None:
                    flow.labels.static(
                        f, [other], node.name, "joined to a tensor whose channels cannot change"
                    )
            continue
        present = [f for f in factors if f is not None]
        first = present[0]
        if any(other != f.axes[0] for f in present):
            continue  # a factor of several axes is handled at its first axis
        if any(f.axes != first.axes for f in present):
            present = [flow.labels.collapse(f, other, node.name) for f in present]
            first = present[0]
        for f in present[1:]:
            flow.labels.join(first.ids, f.ids, node.name)
        result.append(first)
    return tuple(result)


def split_sizes(node: Node, constants: Constants, length: int) -> tuple[int, ...]:
    """The lengths that Split gives, from the constant input, the attribute, or equal parts."""
    if 1 in constants:
        return tuple(int(v) for v in constants[1])
    if "split" in node.attributes:
        return tuple(int(v) for v in node.attributes["split"])
    n = int(node.attributes.get("num_outputs", len(node.outputs)))
    size = -(-length // n)
    return (*(size,) * (n - 1), length - size * (n - 1))


def _split_flow(flow: Flow, node: Node) -> None:
    shape = flow.shape(node.inputs[0])
    second = node.inputs[1] if len(node.inputs) > 1 else ""
    values = flow.constant(second) if second else None
    if shape is None or (second and values is None):
        flow.freeze_all(node, "the sizes are unknown")
        return
    axis = int(node.attributes.get("axis", 0)) % len(shape)
    start = 0
    for output, size in zip(
        node.outputs, split_sizes(node, {} if values is None else {1: values}, shape[axis]), strict=True
    ):
        flow.set(output, [_cut(f, axis, start, start + size) for f in flow.data(node.inputs[0], node)])
        start += size


def _cut(factor: Factor, axis: int, start: int, end: int) -> Factor | None:
    if axis not in factor.axes:
        return factor
    i = factor.axes.index(axis)
    ids = factor.ids.take(range(start, end), axis=i)
    if end - start == 1:
        rest = tuple(a for a in factor.axes if a != axis)
        if rest:
            return Factor(rest, ids.squeeze(i))
    return Factor(factor.axes, ids)


def _split_edits(node: Node, kept: Kept) -> list[Edit]:
    shape = kept.shape(node.inputs[0])
    if shape is None:
        return []
    axis = int(node.attributes.get("axis", 0)) % len(shape)
    mask = kept.mask(node.inputs[0], axis)
    if mask is None:
        return []
    given = kept.constant(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] else None
    sizes = split_sizes(node, {} if given is None else {1: given}, shape[axis])
    ends = np.cumsum(sizes)
    new = [int(mask[end - size : end].sum()) for size, end in zip(sizes, ends, strict=True)]
    if node.version < 13:
        return [SetAttribute(node.name, "split", tuple(new))]
    edits: list[Edit] = [ReplaceConstant(node.name, 1, np.asarray(new, np.int64))]
    if "num_outputs" in node.attributes:
        edits.append(SetAttribute(node.name, "num_outputs", None))
    return edits


def _concat_torch(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
    import torch

    axis = int(node.attributes["axis"])

    def concat(inputs: Sequence[Any]) -> Tensor:
        given = [torch.tensor(np.array(constants[i])) if x is None else x for i, x in enumerate(inputs)]
        return torch.cat(given, axis)

    return concat


def _split_torch(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
    axis = int(node.attributes.get("axis", 0))

    def split(inputs: Sequence[Any]) -> tuple[Tensor, ...]:
        x = inputs[0]
        return tuple(x.split(split_sizes(node, constants, x.shape[axis]), axis))

    return split


register(
    OpSpec("Concat", _concat_flow, _concat_torch),
    OpSpec("Split", _split_flow, _split_torch, _split_edits),
)
