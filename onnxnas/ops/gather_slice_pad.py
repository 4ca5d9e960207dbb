"""Gather, Slice and Pad: labels are picked, cut or extended; their constants are counted anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxnas.ops.channels import Factor, Ids, tidy
from onnxnas.ops.elementwise import constant_scalar
from onnxnas.ops.registry import register
from onnxnas.ops.spec import BatchNorm, Flow, Kept, OpSpec, TorchFunction, attribute_or_input
from onnxnas.types import Node, Shape
from rewriters.edits import Edit, ReplaceConstant, SetAttribute

if TYPE_CHECKING:
    from torch import Tensor

Constants = Mapping[int, NDArray[Any]]


def _gather_flow(flow: Flow, node: Node) -> None:
    x, index = node.inputs
    shape, index_shape = flow.shape(x), flow.shape(index)
    if shape is None or index_shape is None:
        flow.freeze_all(node, "a shape is unknown")
        return
    axis = int(node.attributes.get("axis", 0)) % len(shape)
    chosen = flow.constant(index)
    layout = flow.data(x, node)
    if chosen is None:
        layout = flow.static(layout, [axis], node, "picked from by an index")
    grow = len(index_shape) - 1
    result: list[Factor | None] = []
    for factor in layout:
        axes = tuple(a + grow if a > axis else a for a in factor.axes)
        if axis not in factor.axes:
            result.append(Factor(axes, factor.ids))
            continue
        assert chosen is not None
        place = factor.axes.index(axis)
        ids = factor.ids.take(chosen, axis=place)
        if not index_shape and len(axes) == 1:
            flow.labels.freeze(ids.reshape(-1), node.name, "picked by its position")
            continue
        result.append(tidy(Factor((*axes[:place], *range(axis, axis + grow + 1), *axes[place + 1 :]), ids)))
    flow.set(node.outputs[0], result)


def _gather_edits(node: Node, kept: Kept) -> list[Edit]:
    """The index without the positions that went, counted anew."""
    shape, index = kept.shape(node.inputs[0]), kept.constant(node.inputs[1])
    if shape is None or index is None:
        return []
    axis = int(node.attributes.get("axis", 0)) % len(shape)
    mask = kept.mask(node.inputs[0], axis)
    if mask is None:
        return []
    wanted = np.asarray(index) % shape[axis]
    for i in range(wanted.ndim):
        stays = kept.mask(node.outputs[0], axis + i)
        if stays is not None:
            wanted = wanted.compress(stays, axis=i)
    return [ReplaceConstant(node.name, 1, np.asarray((np.cumsum(mask) - 1)[wanted], np.int64))]


def _slice_ranges(
    node: Node, constants: Constants, shape: Sequence[int]
) -> dict[int, tuple[int, int, int]] | None:
    """axis -> (start, end, step), clamped to the length; None when it is not known."""
    starts, ends = (attribute_or_input(node, n, i, constants) for n, i in (("starts", 1), ("ends", 2)))
    if starts is None or ends is None or (len(node.inputs) > 3 and node.inputs[3] and 3 not in constants):
        return None
    if len(node.inputs) > 4 and node.inputs[4] and 4 not in constants:
        return None
    axes = attribute_or_input(node, "axes", 3, constants)
    axes = range(len(starts)) if axes is None else axes
    steps = constants.get(4, np.ones(len(starts), np.int64))
    result = {}
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        a = int(axis) % len(shape)
        lo, hi, by = slice(int(start), int(end), int(step)).indices(shape[a])
        result[a] = (lo, hi, by)
    return result


def _cut_axes(node: Node, constants: Constants, rank: int, starts: Shape | None) -> Sequence[int]:
    """The axes along which a Slice cuts, wherever; all of them when it does not say."""
    axes = attribute_or_input(node, "axes", 3, constants)
    if axes is not None:
        return [int(a) % rank for a in axes]
    named = len(node.inputs) > 3 and node.inputs[3]
    return range(rank if named or not starts else starts[0])


def _constants(node: Node, get: Any) -> dict[int, NDArray[Any]]:
    found = {i: get(name) for i, name in enumerate(node.inputs) if i and name}
    return {i: v for i, v in found.items() if v is not None}


def _slice_flow(flow: Flow, node: Node) -> None:
    shape = flow.shape(node.inputs[0])
    if shape is None:
        flow.freeze_all(node, "its shape is unknown")
        return
    constants = _constants(node, flow.constant)
    ranges = _slice_ranges(node, constants, shape)
    layout = flow.data(node.inputs[0], node)
    if ranges is None:
        cut = _cut_axes(node, constants, len(shape), flow.shape(node.inputs[1]))
        flow.set(node.outputs[0], flow.static(layout, cut, node, "where it cuts is computed at run time"))
        return
    strided = [a for a, (_, _, by) in ranges.items() if by != 1]
    layout = flow.static(layout, strided, node, "cut with a stride")
    flow.set(node.outputs[0], [_sliced(f, ranges) for f in layout])


def _sliced(factor: Factor, ranges: Mapping[int, tuple[int, int, int]]) -> Factor:
    index = tuple(slice(*ranges[a]) if a in ranges else slice(None) for a in factor.axes)
    return Factor(factor.axes, factor.ids[index])


def _slice_edits(node: Node, kept: Kept) -> list[Edit]:
    shape = kept.shape(node.inputs[0])
    constants = _constants(node, kept.constant)
    ranges = None if shape is None else _slice_ranges(node, constants, shape)
    if shape is None or ranges is None:
        return []
    new = dict(ranges)
    for axis, (start, end, step) in ranges.items():
        mask = kept.mask(node.inputs[0], axis)
        if mask is not None and step == 1:
            first = int(mask[:start].sum())
            new[axis] = (first, first + int(mask[start:end].sum()), 1)
    if new == ranges:
        return []
    # `ends` of an axis that is not labelled keeps what the file says: it may be "to the end".
    starts, ends = (attribute_or_input(node, n, i, constants) for n, i in (("starts", 1), ("ends", 2)))
    order = attribute_or_input(node, "axes", 3, constants)
    axes = [int(a) % len(shape) for a in (range(len(starts)) if order is None else order)]
    changed = [new[a] != ranges[a] for a in axes]
    begin = [new[a][0] if c else int(s) for a, c, s in zip(axes, changed, starts, strict=True)]
    stop = [new[a][1] if c else int(e) for a, c, e in zip(axes, changed, ends, strict=True)]
    if node.version < 10:
        return [SetAttribute(node.name, "starts", tuple(begin)), SetAttribute(node.name, "ends", tuple(stop))]
    return [
        ReplaceConstant(node.name, 1, np.asarray(begin, np.int64)),
        ReplaceConstant(node.name, 2, np.asarray(stop, np.int64)),
    ]


def pad_widths(node: Node, constants: Constants, rank: int) -> list[tuple[int, int]] | None:
    """(before, after) for each axis; None when it is not known."""
    pads = attribute_or_input(node, "pads", 1, constants)
    if pads is None:
        return None
    axes = constants.get(3, np.arange(rank))
    result = [(0, 0)] * rank
    for i, axis in enumerate(axes):
        result[int(axis) % rank] = (int(pads[i]), int(pads[i + len(axes)]))
    return result


def _pad_flow(flow: Flow, node: Node) -> None:
    x = node.inputs[0]
    shape = flow.shape(x)
    widths = None if shape is None else pad_widths(node, _constants(node, flow.constant), len(shape))
    if shape is None or widths is None:
        flow.freeze_all(node, "how much it pads is computed at run time")
        return
    padded = [a for a, w in enumerate(widths) if w != (0, 0)]
    layout = flow.data(x, node)
    if node.attributes.get("mode", "constant") != "constant" or any(min(w) < 0 for w in widths):
        layout = flow.static(layout, padded, node, "padded with its own values")
    layout = flow.static(
        layout, [a for f in layout if len(f.axes) > 1 for a in f.axes if a in padded], node, "padded"
    )
    flow.set(node.outputs[0], [_padded(flow, f, widths) for f in layout])


def _padded(flow: Flow, factor: Factor, widths: Sequence[tuple[int, int]]) -> Factor:
    """Padding makes positions that can go without anything else going."""
    before, after = widths[factor.axes[0]]
    if len(factor.axes) > 1 or (before, after) == (0, 0):
        return factor
    ids: Ids = np.concatenate([flow.labels.fresh(before), factor.ids, flow.labels.fresh(after)])
    return Factor(factor.axes, ids)


def _pad_edits(node: Node, kept: Kept) -> list[Edit]:
    shape = kept.shape(node.inputs[0])
    constants = _constants(node, kept.constant)
    widths = None if shape is None else pad_widths(node, constants, len(shape))
    if shape is None or widths is None:
        return []
    new = list(widths)
    for axis, (before, after) in enumerate(widths):
        mask = kept.mask(node.outputs[0], axis)
        if mask is not None and (before or after) and min(before, after) >= 0:
            new[axis] = (int(mask[:before].sum()), int(mask[len(mask) - after :].sum()))
    if new == widths:
        return []
    axes = [int(a) % len(shape) for a in constants.get(3, np.arange(len(shape)))]
    pads = [new[a][0] for a in axes] + [new[a][1] for a in axes]
    if node.version < 11:
        return [SetAttribute(node.name, "pads", tuple(pads))]
    return [ReplaceConstant(node.name, 1, np.asarray(pads, np.int64))]


def _gather_torch(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
    import torch

    axis = int(node.attributes.get("axis", 0))
    fixed = torch.tensor(np.array(constants[1])).long() if 1 in constants else None

    def gather(inputs: Sequence[Any]) -> Tensor:
        x = inputs[0] if inputs[0] is not None else torch.tensor(np.array(constants[0]))
        index = fixed if fixed is not None else inputs[1]
        index = index.to(x.device).long()
        length = x.shape[axis]
        index = torch.where(index < 0, index + length, index)
        if index.ndim == 0:
            return (
                x.select(axis, int(index))
                if fixed is not None
                else x.index_select(axis, index[None]).squeeze(axis)
            )
        a = axis % x.ndim
        return x.index_select(a, index.reshape(-1)).reshape(*x.shape[:a], *index.shape, *x.shape[a + 1 :])

    return gather


def _slice_torch(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
    def run(inputs: Sequence[Any]) -> Tensor:
        import torch

        x = inputs[0] if inputs[0] is not None else torch.tensor(np.array(constants[0]))
        known = dict(constants)
        for i, value in enumerate(inputs):
            if i and value is not None:
                known[i] = value.detach().cpu().numpy()
        ranges = _slice_ranges(node, known, x.shape) or {}
        for axis, (start, end, step) in ranges.items():
            if step < 0:
                index = torch.arange(start, end, step, device=x.device)
                x = x.index_select(axis, index)
            elif step == 1:
                x = x.narrow(axis, start, max(end - start, 0))
            else:
                x = x[(slice(None),) * axis + (slice(start, end, step),)]
        return x

    return run


def _pad_torch(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
    import torch
    from torch.nn import functional as F

    kind = str(node.attributes.get("mode", "constant"))
    value = float(node.attributes.get("value", 0.0))

    def pad(inputs: Sequence[Any]) -> Tensor:
        x = inputs[0]
        known = {
            **constants,
            **{i: v.detach().cpu().numpy() for i, v in enumerate(inputs) if i and v is not None},
        }
        widths = pad_widths(node, known, x.ndim) or []
        if kind == "constant":
            fill = constant_scalar(known.get(2), value)
            return F.pad(x, [p for pair in reversed(widths) for p in pair], value=fill)
        for axis, width in enumerate(widths):
            if width != (0, 0):
                places = np.pad(np.arange(x.shape[axis]), width, mode=kind)  # type: ignore[call-overload]
                x = x.index_select(axis, torch.from_numpy(places).to(x.device))
        return x

    return pad


register(
    OpSpec("Gather", _gather_flow, _gather_torch, _gather_edits),
    OpSpec("Slice", _slice_flow, _slice_torch, _slice_edits),
    OpSpec("Pad", _pad_flow, _pad_torch, _pad_edits),
)
