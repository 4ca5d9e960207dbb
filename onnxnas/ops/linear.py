"""Matrix products. Contracted axes of both operands are the same channels; the other axes pass on.

With a constant operand its free axis makes new channels (a linear layer's outputs).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxnas.ops.channels import Factor, Ids, Layout, at
from onnxnas.ops.merge import shifted
from onnxnas.ops.registry import register
from onnxnas.ops.spec import BatchNorm, Flow, OpSpec, Shapes, TorchFunction
from onnxnas.types import Node, Shape

if TYPE_CHECKING:
    from torch import Tensor


def _gemm_flow(flow: Flow, node: Node) -> None:
    a, b = node.inputs[:2]
    a_shape, b_shape = flow.shape(a), flow.shape(b)
    if a_shape is None or b_shape is None or node.attributes.get("transA", 0):
        flow.freeze_all(node, "only a Gemm with transA=0 is described")
        return
    free, contracted = (0, 1) if node.attributes.get("transB", 0) else (1, 0)
    ids = flow.single(a, 1, node)
    out = flow.labels.fresh(b_shape[free])
    flow.bind_all(b, {free: out} if ids is None else {contracted: ids, free: out}, node)
    if len(node.inputs) > 2 and node.inputs[2]:
        bias, shape = node.inputs[2], flow.shape(node.inputs[2])
        if shape is None:
            flow.labels.freeze(out, node.name, "the shape of the bias is unknown")
        elif shape and shape[-1] != 1:
            flow.bind(bias, len(shape) - 1, out, node)
    rows = [f for f in flow.layout(a) if 1 not in f.axes]
    flow.set(node.outputs[0], [*rows, Factor((1,), out)])


def _axis(flow: Flow, node: Node, operand: str, axis: int, layout: Layout) -> tuple[Ids | None, Layout]:
    """Take the ids of a contracted axis out of `layout`; a factor that has other axes keeps only these."""
    factor = at(layout, axis)
    if factor is None:
        return None, layout
    rest = tuple(f for f in layout if f is not factor)
    if len(factor.axes) == 1:
        return factor.ids, rest
    left = flow.labels.static(factor, [axis], node.name, "")
    return None, rest if left is None else (*rest, left)


def _matmul_flow(flow: Flow, node: Node) -> None:
    a, b = node.inputs
    a_shape, b_shape, y_shape = flow.shape(a), flow.shape(b), flow.shape(node.outputs[0])
    if a_shape is None or b_shape is None or y_shape is None or len(a_shape) < 2 or len(b_shape) < 2:
        flow.freeze_all(node, "a shape is unknown or a vector")
        return
    rank = max(len(a_shape), len(b_shape))
    sides = []
    for name, shape, own, shared in ((a, a_shape, rank - 2, rank - 1), (b, b_shape, rank - 1, rank - 2)):
        layout = shifted(flow.layout(name), rank - len(shape))
        if flow.is_constant(name):
            layout = _constant_layout(flow, node, name, shape, rank, own)
        ids, layout = _axis(flow, node, name, shared, layout)
        sides.append((name, shape, layout, ids, shared))
    _contract(flow, node, rank, *((s[0], s[1], s[3], s[4]) for s in sides))
    flow.set(node.outputs[0], _batched(flow, node, rank, y_shape, [(s[0], s[1], s[2]) for s in sides]))


def _constant_layout(flow: Flow, node: Node, name: str, shape: Shape, rank: int, own: int) -> Layout:
    """The free axis of a constant matrix makes new channels; batch axes are bound where they meet."""
    ids = flow.labels.fresh(shape[own - rank])
    flow.bind(name, own - rank + len(shape), ids, node)
    return (Factor((own,), ids),)


def _contract(flow: Flow, node: Node, rank: int, *sides: tuple[str, Shape, Ids | None, int]) -> None:
    (a, a_shape, a_ids, a_axis), (b, b_shape, b_ids, b_axis) = sides
    if a_ids is not None and b_ids is not None:
        flow.labels.join(a_ids, b_ids, node.name)
        return
    for ids, other, shape, axis in ((a_ids, b, b_shape, b_axis), (b_ids, a, a_shape, a_axis)):
        if ids is None:
            continue
        if flow.is_constant(other):
            flow.bind(other, axis - rank + len(shape), ids, node)
        else:
            flow.labels.freeze(ids, node.name, f"contracted with '{other}', which cannot change there")


def _batched(
    flow: Flow, node: Node, rank: int, y_shape: Shape, sides: Sequence[tuple[str, Shape, Layout]]
) -> Layout:
    """Join both sides' batch axes as they broadcast; row and column axes have one owner each."""
    merged: list[Factor] = []
    for index, (_, _, layout) in enumerate(sides):
        other, other_shape, other_layout = sides[1 - index]
        for factor in layout:
            batch = [x for x in factor.axes if x < rank - 2]
            alone = [
                x for x in batch
                if x - rank + len(other_shape) >= 0
                and other_shape[x - rank + len(other_shape)] != 1
                and at(other_layout, x) is None
            ]  # fmt: skip
            if alone and flow.is_constant(other):
                factor = flow.labels.collapse(factor, alone[0], node.name)
                flow.bind(other, alone[0] - rank + len(other_shape), factor.ids, node)
            elif alone:
                left = flow.labels.static(
                    factor, alone, node.name, "meets a tensor whose batch axis cannot change"
                )
                if left is None:
                    continue
                factor = left
            for met in [m for m in merged if set(m.axes) & set(factor.axes)]:
                merged.remove(met)
                shared = sorted(set(met.axes) & set(factor.axes))
                first = flow.labels.collapse(met, shared[0], node.name)
                second = flow.labels.collapse(factor, shared[0], node.name)
                flow.labels.join(first.ids, second.ids, node.name)
                # what each side has beside the shared axis follows it: whole heads
                factor = second
            merged.append(factor)
    return tuple(merged)


def _matmul_macs(node: Node, shapes: Shapes) -> int:
    a, y = shapes(node.inputs[0]), shapes(node.outputs[0])
    return 0 if not a or y is None else int(np.prod(y)) * a[-1]


def _gemm_macs(node: Node, shapes: Shapes) -> int:
    a, y = shapes(node.inputs[0]), shapes(node.outputs[0])
    return 0 if not a or y is None else int(np.prod(y)) * a[0 if node.attributes.get("transA", 0) else 1]


def _gemm_torch(node: Node, constants: Mapping[int, NDArray[Any]], mode: BatchNorm) -> TorchFunction:
    from torch.nn import functional as F

    alpha, beta = float(node.attributes.get("alpha", 1.0)), float(node.attributes.get("beta", 1.0))
    trans_a, trans_b = bool(node.attributes.get("transA", 0)), bool(node.attributes.get("transB", 0))

    def gemm(inputs: Sequence[Any]) -> Tensor:
        a, b = inputs[0], inputs[1]
        bias = inputs[2] if len(inputs) > 2 else None
        a = a.t() if trans_a else a
        b = b if trans_b else b.t()
        if alpha == 1.0 and beta == 1.0 and (bias is None or bias.ndim == 1):
            return F.linear(a, b, bias)
        y = F.linear(a, b) * alpha
        return y if bias is None else y + bias * beta

    return gemm


def _matmul_torch(node: Node, constants: Mapping[int, NDArray[Any]], mode: BatchNorm) -> TorchFunction:
    import torch

    return lambda inputs: torch.matmul(inputs[0], inputs[1])


register(
    OpSpec("Gemm", _gemm_flow, _gemm_torch, macs=_gemm_macs),
    OpSpec("MatMul", _matmul_flow, _matmul_torch, macs=_matmul_macs),
)
