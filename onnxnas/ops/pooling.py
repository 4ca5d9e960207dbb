"""Pooling: channels pass on axis 1; nothing may go along the axes that the window runs over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from onnxnas.ops.conv import resolved_pads
from onnxnas.ops.registry import register
from onnxnas.ops.spec import BatchNorm, Flow, OpSpec, TorchFunction
from onnxnas.types import Node

if TYPE_CHECKING:
    from torch import Tensor

Constants = Mapping[int, NDArray[Any]]


def _flow(flow: Flow, node: Node) -> None:
    x = node.inputs[0]
    spatial = [a for f in flow.layout(x) for a in f.axes if a >= 2]
    flow.set(node.outputs[0], flow.static(flow.layout(x), spatial, node, "a pooling window runs along it"))


def _global_flow(flow: Flow, node: Node) -> None:
    """Everything along the spatial axes is reduced to one position."""
    x = node.inputs[0]
    mixed = [a for f in flow.layout(x) if min(f.axes) < 2 for a in f.axes if a >= 2]
    layout = flow.static(flow.layout(x), mixed, node, "pooled over")
    flow.set(node.outputs[0], [f for f in layout if max(f.axes) < 2])


def _pool_torch(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
    import torch
    from torch.nn import functional as F

    kernel = tuple(node.attributes["kernel_shape"])
    n = len(kernel)
    strides = tuple(node.attributes.get("strides", (1,) * n))
    dilations = tuple(node.attributes.get("dilations", (1,) * n))
    ceil = bool(node.attributes.get("ceil_mode", 0))
    maximum = node.op_type == "MaxPool"
    include = bool(node.attributes.get("count_include_pad", 0))
    pool: Any = {
        True: (F.max_pool1d, F.max_pool2d, F.max_pool3d),
        False: (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d),
    }[maximum][n - 1]

    def simple(x: Tensor, pads: tuple[int, ...]) -> Tensor:
        if maximum:
            return pool(x, kernel, strides, pads, dilations, ceil)
        return pool(x, kernel, strides, pads, ceil, include)

    def run(inputs: Sequence[Any]) -> Tensor:
        x = inputs[0]
        pads = resolved_pads(node, x.shape[2:], kernel)
        if all(a == b and 2 * a <= k for (a, b), k in zip(pads, kernel, strict=True)):
            return simple(x, tuple(a for a, _ in pads))
        flat = [p for pair in reversed(pads) for p in pair]
        if maximum:
            return simple(F.pad(x, flat, value=float("-inf")), (0,) * n)
        total = simple(F.pad(x, flat), (0,) * n)
        if include:
            return total
        ones = F.pad(torch.ones_like(x[:1, :1]), flat)
        return total / simple(ones, (0,) * n)

    return run


def _windows(size: int, before: int, after: int, reach: int, stride: int, ceil: bool) -> int:
    """How many windows there are along an axis; with `ceil` the last may reach over the end, not begin there."""
    room = before + size + after - reach
    if not ceil:
        return room // stride + 1
    count = -(-room // stride) + 1
    return count - 1 if (count - 1) * stride >= before + size else count


def _norm_torch(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
    """LpPool. torch's own divides and multiplies by the window's size, and knows no dilation."""
    import torch
    from torch.nn import functional as F

    p, kernel = float(node.attributes.get("p", 2)), tuple(node.attributes["kernel_shape"])
    strides = tuple(node.attributes.get("strides", (1,) * len(kernel)))
    dilations = tuple(node.attributes.get("dilations", (1,) * len(kernel)))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    ceil = bool(node.attributes.get("ceil_mode", 0))

    def run(inputs: Sequence[Any]) -> Tensor:
        x = inputs[0]
        pads = resolved_pads(node, x.shape[2:], kernel)
        sides: list[int] = []
        spans: list[int] = []  # from the start of the first window to that of the last
        for size, (before, after), r, s in zip(x.shape[2:], pads, reach, strides, strict=True):
            span = (_windows(size, before, after, r, s, ceil) - 1) * s + 1
            sides = [before, max(after, span + r - 1 - before - size), *sides]
            spans.append(span)
        x = F.pad(x, sides)
        parts = []
        for place in product(*(range(k) for k in kernel)):
            starts = [i * d for i, d in zip(place, dilations, strict=True)]
            windows = [slice(a, a + n, s) for a, n, s in zip(starts, spans, strides, strict=True)]
            parts.append(x[(slice(None), slice(None), *windows)])
        return torch.linalg.vector_norm(torch.stack(parts), p, 0)

    return run


def _global_norm_torch(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
    import torch

    p = float(node.attributes.get("p", 2))
    return lambda inputs: torch.linalg.vector_norm(
        inputs[0], p, tuple(range(2, inputs[0].ndim)), keepdim=True
    )


def _global_torch(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
    maximum = node.op_type == "GlobalMaxPool"

    def run(inputs: Sequence[Any]) -> Tensor:
        x = inputs[0]
        over = tuple(range(2, x.ndim))
        return x.amax(over, keepdim=True) if maximum else x.mean(over, keepdim=True)

    return run


register(
    *(OpSpec(name, _flow, _pool_torch) for name in ("MaxPool", "AveragePool")),
    OpSpec("LpPool", _flow, _norm_torch, since=2),
    OpSpec("GlobalLpPool", _global_flow, _global_norm_torch, since=2),
    *(OpSpec(name, _global_flow, _global_torch) for name in ("GlobalAveragePool", "GlobalMaxPool")),
)
