"""Operators that only rearrange axes.

A reshape falls into independent runs of input and output axes of equal product. Within a run the ids
of all its positions are laid out in memory order and read again in the new shape: flattening turns a
channel into a run of positions, splitting an embedding gives ids over (heads, head size).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxnas.ops.channels import MAX_IDS, Factor, Layout, tidy
from onnxnas.ops.registry import register
from onnxnas.ops.spec import BatchNorm, Flow, Kept, OpSpec, TorchFunction, attribute_or_input
from onnxnas.types import Node, Shape
from rewriters.edits import Edit, ReplaceConstant

if TYPE_CHECKING:
    from torch import Tensor

Constants = Mapping[int, NDArray[Any]]


def runs(before: Shape, after: Shape) -> list[tuple[list[int], list[int]]]:
    """Minimal runs of axes (of `before`, of `after`) with equal products; axes of length 1 belong to none."""
    result: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        if i < len(before) and before[i] == 1:
            i += 1
            continue
        if j < len(after) and after[j] == 1:
            j += 1
            continue
        if i >= len(before) or j >= len(after):
            break
        left, right, a, b = [i], [j], before[i], after[j]
        i, j = i + 1, j + 1
        while a != b:
            if a < b:
                a, left, i = a * before[i], [*left, i], i + 1
            else:
                b, right, j = b * after[j], [*right, j], j + 1
        result.append(([x for x in left if before[x] != 1], [x for x in right if after[x] != 1]))
    return result


def reshaped(flow: Flow, node: Node, layout: Layout, before: Shape, after: Shape) -> Layout:
    """Labels of the output of a reshape from `before` to `after`."""
    plan = runs(before, after)
    result: list[Factor | None] = []
    for factor in _one_for_each(flow, node, layout, [left for left, _ in plan]):
        current: Factor | None = tidy(factor)
        if current is None:
            continue
        touched = [(left, right) for left, right in plan if set(left) & set(current.axes)]
        if _too_big(touched, before):
            # Too many ids if each axis keeps its own: labelled axes are joined where they meet unlabelled ones.
            blurred = [
                a
                for left, _ in touched
                for a in left
                if a in current.axes and not set(left) <= set(current.axes)
            ]
            current = flow.labels.static(current, blurred, node.name, "mixed with an axis that cannot change")
            if current is None:
                continue
            touched = [(left, right) for left, right in touched if set(left) & set(current.axes)]
        result.append(_read_again(current, touched, before, after))
    return tuple(f for f in result if f is not None)


def _one_for_each(flow: Flow, node: Node, layout: Layout, lefts: Sequence[Sequence[int]]) -> Layout:
    """`layout` with one factor along each run: of axes that are merged, the one of most positions stays elastic."""
    for left in lefts:
        rivals = [f for f in layout if any(a in left and f.ids.size > 1 for a in f.axes)]
        most = max(rivals, key=lambda f: f.ids.size, default=None)
        done = (
            f if f is most else flow.labels.static(f, left, node.name, "mixed with channels of another axis")
            for f in layout
        )
        layout = tuple(f for f in done if f is not None)
    return layout


def _too_big(touched: list[tuple[list[int], list[int]]], shape: Shape) -> bool:
    return int(np.prod([shape[a] for left, _ in touched for a in left])) > MAX_IDS


def _read_again(
    factor: Factor, touched: list[tuple[list[int], list[int]]], before: Shape, after: Shape
) -> Factor | None:
    full = [a for left, _ in touched for a in left]
    spread = factor.ids.reshape([before[a] if a in factor.axes else 1 for a in full])
    everywhere = np.broadcast_to(spread, [before[a] for a in full])
    axes = [a for _, right in touched for a in right]
    return tidy(Factor(tuple(axes), everywhere.reshape([after[a] for a in axes])))


def _reshape_flow(flow: Flow, node: Node) -> None:
    before, after = flow.shape(node.inputs[0]), flow.shape(node.outputs[0])
    if before is None or after is None or 0 in before or int(np.prod(before)) != int(np.prod(after)):
        flow.freeze_all(node, "the shape it gives is unknown")
        return
    layout = flow.data(node.inputs[0], node)
    target = flow.constant(node.inputs[1]) if node.op_type == "Reshape" and len(node.inputs) > 1 else ()
    result = reshaped(flow, node, layout, before, after)
    if target is None:
        entries = _entries(flow, node.inputs[1])
        computed = [a for a in range(len(after)) if entries[a : a + 1] != [-1]]
        result = flow.static(result, computed, node, "the shape it gives is computed at run time")
    flow.set(node.outputs[0], result)


def _reshape_edits(node: Node, kept: Kept) -> list[Edit]:
    old, new = kept.shape(node.outputs[0]), kept.kept_shape(node.outputs[0])
    target = _target(node, kept)
    if old is None or new is None or target is None or old == new:
        return []
    # -1 and 0 follow the data by themselves unless the copied axis is another one now; numbers do not.
    values = [int(t) if t in (-1, 0) or o == n else n for t, o, n in zip(target, old, new, strict=True)]
    if values == [int(t) for t in target]:
        return []
    return [ReplaceConstant(node.name, 1, np.asarray(values, np.int64))]


def _target(node: Node, kept: Kept) -> NDArray[Any] | None:
    return kept.constant(node.inputs[1]) if len(node.inputs) > 1 else None


def _transpose_flow(flow: Flow, node: Node) -> None:
    shape = flow.shape(node.inputs[0])
    if shape is None:
        flow.freeze_all(node, "its shape is unknown")
        return
    perm = [int(p) for p in node.attributes.get("perm", tuple(reversed(range(len(shape)))))]
    flow.set(
        node.outputs[0], [f.moved([perm.index(a) for a in f.axes]) for f in flow.data(node.inputs[0], node)]
    )


def _expand_flow(flow: Flow, node: Node) -> None:
    """Axes of length 1 are repeated: all copies of a channel are that channel."""
    x = node.inputs[0]
    before, after = flow.shape(x), flow.shape(node.outputs[0])
    if before is None or after is None:
        flow.freeze_all(node, "the shape it gives is unknown")
        return
    layout = flow.data(x, node)
    if flow.constant(node.inputs[1]) is None:
        free = _computed_but_kept(flow, node.inputs[1], len(before))
        bound = [a for a in range(len(before)) if a not in free]
        layout = flow.static(layout, bound, node, "the shape it gives is computed at run time")
    by = len(after) - len(before)
    flow.set(node.outputs[0], [Factor(tuple(a + by for a in f.axes), f.ids) for f in layout])


def _computed_but_kept(flow: Flow, target: str, rank: int) -> set[int]:
    """Axes of the input at which a target that is computed at run time surely says 1, "as it is"."""
    entries = _entries(flow, target)
    return {i - len(entries) + rank for i, entry in enumerate(entries) if entry == 1}


_ENTRYWISE = ("Concat", "Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Where", "Equal")


def _entries(flow: Flow, tensor: str) -> list[int | None]:
    """The entries of an integer vector as far as they do not depend on the data; None for the others.

    Exporters compute the target of an Expand as Concat(batch, 1, 1), or as Where(target == -1, 1, target).
    """
    value = flow.constant(tensor)
    if value is not None:
        return [int(v) for v in value.reshape(-1)]
    node = flow.producer(tensor)
    shape = flow.shape(tensor)
    unknown: list[int | None] = [None] * (0 if shape is None else math.prod(shape))
    if node is None or node.op_type not in _ENTRYWISE:
        return unknown
    inputs = [_entries(flow, name) for name in node.inputs]
    if node.op_type == "Concat":
        return [entry for entries in inputs for entry in entries]
    if node.op_type not in ("Where", "Equal"):
        return inputs[0]
    length = max(map(len, inputs))
    rows = zip(*(entries * (length if len(entries) == 1 else 1) for entries in inputs), strict=True)
    if node.op_type == "Equal":
        return [None if None in pair else int(pair[0] == pair[1]) for pair in rows]
    return [(a if c else b) if c is not None else None for c, a, b in rows]


def _expand_edits(node: Node, kept: Kept) -> list[Edit]:
    old, new = kept.shape(node.outputs[0]), kept.kept_shape(node.outputs[0])
    target = kept.constant(node.inputs[1])
    if old is None or new is None or target is None or old == new:
        return []
    offset = len(old) - len(target)
    values = [
        n if t != 1 and o != n else int(t) for t, o, n in zip(target, old[offset:], new[offset:], strict=True)
    ]
    return [ReplaceConstant(node.name, 1, np.asarray(values, np.int64))]


def _tile_flow(flow: Flow, node: Node) -> None:
    before, after = flow.shape(node.inputs[0]), flow.shape(node.outputs[0])
    if before is None or after is None:
        flow.freeze_all(node, "the shape it gives is unknown")
        return
    repeats = _entries(flow, node.inputs[1])
    computed = [a for a in range(len(before)) if repeats[a : a + 1] in ([], [None])]
    layout = []
    for factor in flow.static(
        flow.layout(node.inputs[0]), computed, node, "its repeats are computed at run time"
    ):
        layout.append(Factor(factor.axes, np.tile(factor.ids, [after[a] // before[a] for a in factor.axes])))
    flow.set(node.outputs[0], layout)


def _shape_flow(flow: Flow, node: Node) -> None:
    """Sizes read at run time follow the data; known ones became constants in the canonical form."""


def _reshape_torch(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
    target = None if 1 not in constants else tuple(int(v) for v in constants[1])
    copy_zero = not node.attributes.get("allowzero", 0)

    def reshape(inputs: Sequence[Any]) -> Tensor:
        x = inputs[0]
        shape = target if target is not None else tuple(int(v) for v in inputs[1])
        if copy_zero and 0 in shape:
            shape = tuple(x.shape[i] if v == 0 else v for i, v in enumerate(shape))
        return x.reshape(shape)

    return reshape


def _flatten_torch(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
    axis = int(node.attributes.get("axis", 1))

    def flatten(inputs: Sequence[Any]) -> Tensor:
        x = inputs[0]
        first = axis % x.ndim if axis < 0 else axis
        rows = 1
        for length in x.shape[:first]:
            rows *= length
        return x.reshape(rows, -1)

    return flatten


def _transpose_torch(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
    perm = node.attributes.get("perm")

    def transpose(inputs: Sequence[Any]) -> Tensor:
        x = inputs[0]
        return x.permute(perm if perm is not None else tuple(reversed(range(x.ndim))))

    return transpose


def _squeeze_torch(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
    axes = attribute_or_input(node, "axes", 1, constants)

    def squeeze(inputs: Sequence[Any]) -> Tensor:
        x = inputs[0]
        return x.squeeze() if axes is None else x.squeeze(tuple(int(a) for a in axes))

    return squeeze


def _unsqueeze_torch(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
    axes = [int(a) for a in attribute_or_input(node, "axes", 1, constants)]

    def unsqueeze(inputs: Sequence[Any]) -> Tensor:
        x = inputs[0]
        rank = x.ndim + len(axes)
        for axis in sorted(a % rank for a in axes):
            x = x.unsqueeze(axis)
        return x

    return unsqueeze


def _expand_torch(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
    import torch

    fixed = None if 1 not in constants else tuple(int(v) for v in constants[1])

    def expand(inputs: Sequence[Any]) -> Tensor:
        x = inputs[0]
        shape = fixed if fixed is not None else tuple(int(v) for v in inputs[1])
        return x.expand(torch.broadcast_shapes(x.shape, shape))

    return expand


def _tile_torch(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
    def tile(inputs: Sequence[Any]) -> Tensor:
        x = inputs[0]
        repeats = constants[1] if 1 in constants else inputs[1]
        return x.repeat(tuple(int(r) for r in repeats))

    return tile


def _shape_torch(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
    import torch

    start, end = node.attributes.get("start", 0), node.attributes.get("end")
    whole = node.op_type == "Size"

    def shape(inputs: Sequence[Any]) -> Tensor:
        x = inputs[0]
        return torch.tensor(x.numel()) if whole else torch.tensor(x.shape[start:end], dtype=torch.int64)

    return shape


register(
    OpSpec("Reshape", _reshape_flow, _reshape_torch, _reshape_edits),
    OpSpec("Flatten", _reshape_flow, _flatten_torch),
    OpSpec("Squeeze", _reshape_flow, _squeeze_torch),
    OpSpec("Unsqueeze", _reshape_flow, _unsqueeze_torch),
    OpSpec("Transpose", _transpose_flow, _transpose_torch),
    OpSpec("Expand", _expand_flow, _expand_torch, _expand_edits),
    OpSpec("Tile", _tile_flow, _tile_torch),
    OpSpec("Shape", _shape_flow, _shape_torch),
    OpSpec("Size", _shape_flow, _shape_torch),
)
