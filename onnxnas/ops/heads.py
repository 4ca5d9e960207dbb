"""Attention heads as channels: a head goes as a whole, with all that belongs to it in queries, keys and values.

An operand shows its heads in one of two ways:

    B x S x (heads * size)              the last axis is read as heads, each of `size` positions in a row
    B x heads x S x size
"""

from __future__ import annotations

import numpy as np

from onnxnas.ops.channels import FIXED, Factor, Ids, at
from onnxnas.ops.spec import Flow, Kept
from onnxnas.types import Node, Shape

AXIS = {3: 2, 4: 1}
"""rank -> the axis with the heads."""


def labels(flow: Flow, node: Node, tensor: str, count: int) -> Ids:
    """The label of each of the `count` heads of an operand; FIXED where it cannot go.

    All positions of a head are joined; whatever else is labelled stays. Raises ValueError for a shape that is
    unknown or has no heads.
    """
    shape = flow.shape(tensor)
    if shape is None or len(shape) not in AXIS or not count or shape[AXIS[len(shape)]] % count:
        raise ValueError(f"'{tensor}' of shape {shape} does not hold {count} heads")
    axis = AXIS[len(shape)]
    layout = flow.data(tensor, node)
    factor = at(layout, axis)
    for other in layout:
        if other is not factor:
            flow.labels.freeze(other.ids, node.name, "only whole heads can go")
    if factor is None:
        return np.full(count, FIXED)
    ids = flow.labels.collapse(factor, axis, node.name).ids.reshape(count, -1)
    flow.labels.join(ids, ids[:, :1], node.name)
    return ids[:, 0]


def layout(ids: Ids, shape: Shape) -> list[Factor]:
    """The layout of a tensor of `shape` with these heads."""
    axis = AXIS[len(shape)]
    spread = np.repeat(ids, shape[axis] // ids.size)
    return [Factor((axis,), spread)] if spread.size > 1 and (spread >= 0).any() else []


def outputs(flow: Flow, node: Node, *ids: Ids) -> None:
    """Heads of the result, of the keys and of the values that are kept for later, of the scores."""
    for output, own in zip(node.outputs, ids, strict=False):
        shape = flow.shape(output) if output else None
        if shape is not None:
            flow.set(output, layout(own, shape))
        elif output:
            flow.labels.freeze(own, node.name, f"the shape of '{output}' is unknown")


def grouped(flow: Flow, node: Node, queries: Ids, *shared: Ids) -> None:
    """Join each head of keys and values with the query heads that read it, as many for each.

    A single head that all queries read stays, and they can go one by one.
    """
    for ids in shared:
        if ids.size == 1 < queries.size:
            flow.labels.freeze(ids, node.name, "all heads of the queries read it")
        else:
            flow.labels.join(queries.reshape(ids.size, -1), ids[:, None], node.name)


def bind_axis(flow: Flow, node: Node, tensor: str, axis: int, ids: Ids) -> None:
    """A mask or bias may have a value for each head along `axis` (negative: from the end)."""
    shape = flow.shape(tensor)
    if shape is None:
        flow.labels.freeze(ids, node.name, f"the shape of '{tensor}' is unknown")
    elif len(shape) >= -axis and shape[axis] == ids.size > 1:
        flow.bind(tensor, len(shape) + axis, ids, node)


def mask(flow: Flow, node: Node, tensor: str, ids: Ids) -> None:
    """Bind a mask or bias of ... x (heads or 1) x S x T; positions of tokens stay."""
    rank = len(flow.shape(tensor) or ())
    others = [a for a in range(rank) if a != rank - 3]
    flow.layouts[tensor] = flow.static(flow.layout(tensor), others, node, "tokens cannot go")
    bind_axis(flow, node, tensor, -3, ids)


def left(kept: Kept, tensor: str, count: int) -> int:
    """How many of the `count` heads of an operand the sub-network keeps."""
    shape = kept.shape(tensor)
    if shape is None:
        return count
    mask = kept.mask(tensor, AXIS[len(shape)])
    return count if mask is None else int(mask.sum()) * count // mask.size


def width(shape: Shape) -> int:
    """Channels of all heads of an operand of rank 3 or 4 together."""
    return shape[2] if len(shape) == 3 else shape[1] * shape[3]


def length(shape: Shape) -> int:
    """Positions of an operand of rank 3 or 4."""
    return shape[1] if len(shape) == 3 else shape[2]
