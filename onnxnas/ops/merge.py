"""Labels through operators that work element by element with broadcasting (numpy rules)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxnas.ops.channels import Factor, Layout, at
from onnxnas.ops.spec import Flow
from onnxnas.types import Node, Shape


def shifted(layout: Layout, by: int) -> Layout:
    """The layout of the same tensor seen with `by` more leading axes."""
    return tuple(Factor(tuple(a + by for a in f.axes), f.ids) for f in layout)


def broadcast(flow: Flow, node: Node, operands: Sequence[str], out_shape: Shape) -> Layout:
    """Join the labels of `operands` as they meet in an output of `out_shape`.

    Activations must agree along every elastic axis; initializers are bound to the labels they meet.
    """
    rank = len(out_shape)
    activations: list[tuple[Shape, Layout]] = []
    constants: list[tuple[str, Shape]] = []
    for name in operands:
        shape = flow.shape(name)
        if shape is None:
            for other in operands:
                flow.freeze(other, node, f"the shape of '{name}' is unknown")
            return ()
        if flow.is_constant(name):
            constants.append((name, shape))
        else:
            pad = rank - len(shape)
            own = shifted(_unspread(flow, node, flow.layout(name), shape, out_shape[pad:]), pad)
            activations.append(((1,) * pad + shape, own))
    layout = _joined(flow, node, [x for _, x in activations])
    for shape, own in activations:
        bare = [a for f in layout for a in f.axes if shape[a] == out_shape[a] != 1 and at(own, a) is None]
        layout = flow.static(layout, bare, node, "meets a tensor whose channels cannot change")
    for name, shape in constants:
        layout = _bind(flow, node, layout, name, shape, rank)
    return layout


def _unspread(flow: Flow, node: Node, layout: Layout, shape: Shape, out_shape: Shape) -> Layout:
    """Without the labels of single positions that meet many: those stay, and the many go one by one."""
    spread = [a for a, n in enumerate(shape) if n == 1 != out_shape[a]]
    return flow.static(layout, spread, node, "one for all channels that it meets")


def _joined(flow: Flow, node: Node, layouts: Sequence[Layout]) -> Layout:
    """One layout of several of the same rank; factors that share an axis become one."""
    merged: list[Factor] = []
    for layout in layouts:
        for factor in layout:
            for other in [m for m in merged if set(m.axes) & set(factor.axes)]:
                merged.remove(other)
                axes = tuple(sorted({*other.axes, *factor.axes}))
                a, b = _spread(other, axes), _spread(factor, axes)
                flow.labels.join(a, b, node.name)
                a, b = np.broadcast_arrays(a, b)
                factor = Factor(axes, np.where(a < 0, b, a))
            merged.append(factor)
    return tuple(merged)


def _spread(factor: Factor, axes: tuple[int, ...]) -> np.ndarray:
    """The ids with a dimension of length 1 for each axis that the factor lacks."""
    shape = [factor.ids.shape[factor.axes.index(a)] if a in factor.axes else 1 for a in axes]
    return factor.ids.reshape(shape)


def _bind(flow: Flow, node: Node, layout: Layout, name: str, shape: Shape, rank: int) -> Layout:
    """Bind an initializer to the labels it is combined with.

    Where a factor has several axes the outermost is the one that stays elastic (heads, not head size).
    """
    pad = rank - len(shape)
    result: list[Factor] = []
    for factor in layout:
        covered = [a for a in factor.axes if a >= pad and shape[a - pad] != 1]
        if len(factor.axes) > 1 and covered:
            if factor.axes[0] in covered:
                factor = flow.labels.collapse(factor, factor.axes[0], node.name)
            else:
                rest = flow.labels.static(factor, covered, node.name, "")
                assert rest is not None
                factor = rest
        if len(factor.axes) == 1 and factor.axes[0] in covered:
            flow.bind(name, factor.axes[0] - pad, factor.ids, node)
        result.append(factor)
    return tuple(result)
