"""Normalisations. Statistics over channels are taken over the channels that are kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxnas.ops.channels import Factor, Layout, at
from onnxnas.ops.merge import broadcast
from onnxnas.ops.registry import register
from onnxnas.ops.spec import BatchNorm, Flow, Kept, OpSpec, TorchFunction
from onnxnas.types import Node
from rewriters.edits import Edit, SetAttribute

if TYPE_CHECKING:
    from torch import Tensor

Constants = Mapping[int, NDArray[Any]]


def _channel_flow(flow: Flow, node: Node) -> None:
    """Axis 1 has one scale, bias (mean, variance) each (BatchNormalization, InstanceNormalization)."""
    x = node.inputs[0]
    layout = _one_axis(flow, node, x, 1)
    factor = at(layout, 1)
    if factor is not None:
        for parameter in node.inputs[1:]:
            if flow.is_constant(parameter):
                flow.bind(parameter, 0, factor.ids, node)
            elif parameter:
                flow.freeze(x, node, f"'{parameter}' is not a constant")
    flow.set(node.outputs[0], layout)


def _one_axis(flow: Flow, node: Node, x: str, axis: int) -> tuple[Factor, ...]:
    """The layout of `x` with the factor that covers `axis` joined to depend on it alone."""
    return tuple(
        flow.labels.collapse(f, axis, node.name) if axis in f.axes and len(f.axes) > 1 else f
        for f in flow.layout(x)
    )


def _group_norm_flow(flow: Flow, node: Node) -> None:
    """Whole groups go, where there are several channels in each and more than one group."""
    x, scale, bias = node.inputs[:3]
    shape = flow.shape(x)
    factor = at(flow.layout(x), 1)
    if shape is None or factor is None:
        flow.set(node.outputs[0], flow.layout(x))
        return
    layout = _one_axis(flow, node, x, 1)
    factor = at(layout, 1)
    assert factor is not None
    groups = int(node.attributes["num_groups"])
    if groups > 1:
        unit = factor.ids.reshape(groups, -1)
        flow.labels.join(unit, unit[:, :1], node.name)
    for parameter in (scale, bias):
        if flow.is_constant(parameter):
            flow.bind(parameter, 0, factor.ids, node)
        else:
            flow.freeze(x, node, f"'{parameter}' is not a constant")
    flow.set(node.outputs[0], layout)


def _group_norm_edits(node: Node, kept: Kept) -> list[Edit]:
    mask, shape = kept.mask(node.inputs[0], 1), kept.shape(node.inputs[0])
    groups = int(node.attributes["num_groups"])
    if mask is None or shape is None or groups == 1:
        return []
    return [SetAttribute(node.name, "num_groups", int(mask.sum()) * groups // shape[1])]


def _unmixed(flow: Flow, node: Node, over: Sequence[int]) -> Layout:
    """The input's labels; those that run along an axis normalised over and another one stay whole along it."""
    layout = flow.layout(node.inputs[0])
    mixed = [a for f in layout if len(f.axes) > 1 for a in f.axes if a in over]
    return flow.static(layout, mixed, node, "normalised over")


def _trailing_flow(flow: Flow, node: Node) -> None:
    """Statistics over the axes from `axis` on; scale and bias cover these (LayerNormalization, RMSNormalization)."""
    x = node.inputs[0]
    shape = flow.shape(x)
    if shape is None:
        flow.freeze_all(node, "its shape is unknown")
        return
    first = int(node.attributes.get("axis", -1)) % len(shape)
    flow.layouts[x] = _unmixed(flow, node, range(first, len(shape)))
    layout = broadcast(flow, node, [n for n in node.inputs if n], shape)
    flow.set(node.outputs[0], layout)
    for extra in node.outputs[1:]:
        flow.set(extra, [f for f in layout if all(a < first for a in f.axes)])


def _over_flow(axes: Callable[[Node, int], Sequence[int]]) -> Callable[[Flow, Node], None]:
    """Statistics over `axes(node, rank)`, of what is kept along them; there is nothing to bind."""

    def pass_on(flow: Flow, node: Node) -> None:
        x = node.inputs[0]
        shape = flow.shape(x)
        if shape is None:
            flow.freeze_all(node, "its shape is unknown")
            return
        over = [a % len(shape) for a in axes(node, len(shape))]
        flow.set(node.outputs[0], _unmixed(flow, node, over))

    return pass_on


def _softmax_axes(node: Node, rank: int) -> Sequence[int]:
    """One axis; before opset 13 everything from it on, as one row."""
    first = int(node.attributes.get("axis", 1 if node.version < 13 else -1)) % rank
    return range(first, rank) if node.version < 13 else (first,)


def _mean_variance_axes(node: Node, rank: int) -> tuple[int, ...]:
    return tuple(int(a) for a in node.attributes.get("axes", (0, 2, 3)))


def _neighbours_flow(flow: Flow, node: Node) -> None:
    """Each channel is divided by a norm of those beside it: they pass, in the order in which they are."""
    layout = _one_axis(flow, node, node.inputs[0], 1)
    factor = at(layout, 1)
    if factor is not None:
        flow.labels.keep_order(factor.ids)
    flow.set(node.outputs[0], layout)


def _batch_norm_torch(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
    epsilon, name = float(node.attributes.get("epsilon", 1e-5)), node.name

    def normalise(inputs: Sequence[Any]) -> Tensor:
        x, scale, bias, mean, var = inputs
        return mode.batch_norm(name, x, scale, bias, mean, var, epsilon)

    return normalise


def _instance_norm_torch(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
    from torch.nn import functional as F

    epsilon = float(node.attributes.get("epsilon", 1e-5))
    return lambda inputs: F.instance_norm(inputs[0], weight=inputs[1], bias=inputs[2], eps=epsilon)


def _group_norm_torch(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
    from torch.nn import functional as F

    groups, epsilon = int(node.attributes["num_groups"]), float(node.attributes.get("epsilon", 1e-5))

    def normalise(inputs: Sequence[Any]) -> Tensor:
        x, scale, bias = inputs
        return F.group_norm(x, groups, scale, bias, epsilon)

    return normalise


def _layer_norm_torch(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
    from torch.nn import functional as F

    axis, epsilon = int(node.attributes.get("axis", -1)), float(node.attributes.get("epsilon", 1e-5))
    extra = len(node.outputs) > 1

    def normalise(inputs: Sequence[Any]) -> Tensor | tuple[Tensor, ...]:
        x, scale = inputs[0], inputs[1]
        bias = inputs[2] if len(inputs) > 2 else None
        shape = x.shape[axis % x.ndim :]
        y = F.layer_norm(x, shape, scale.expand(shape), None if bias is None else bias.expand(shape), epsilon)
        if not extra:
            return y
        over = tuple(range(axis % x.ndim, x.ndim))
        mean = x.mean(over, keepdim=True)
        return y, mean, ((x - mean).square().mean(over, keepdim=True) + epsilon).rsqrt()

    return normalise


def _rms_norm_torch(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
    axis, epsilon = int(node.attributes.get("axis", -1)), float(node.attributes.get("epsilon", 1e-5))

    def normalise(inputs: Sequence[Any]) -> Tensor:
        x, scale = inputs[0], inputs[1]
        over = tuple(range(axis % x.ndim, x.ndim))
        return x * (x.square().mean(over, keepdim=True) + epsilon).rsqrt() * scale

    return normalise


def _hardmax(x: Tensor, axis: int) -> Tensor:
    """One at the first of the largest values along `axis`, zero elsewhere."""
    import torch

    return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1)


def _softmax_torch(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
    from torch.nn import functional as F

    functions: dict[str, Callable[[Tensor, int], Tensor]] = {
        "Softmax": F.softmax,
        "LogSoftmax": F.log_softmax,
        "Hardmax": _hardmax,
    }
    function = functions[node.op_type]
    old = node.version < 13
    axis = int(node.attributes.get("axis", 1 if old else -1))

    def normalise(inputs: Sequence[Any]) -> Tensor:
        x = inputs[0]
        if not old:
            return function(x, axis)
        rows = int(np.prod(x.shape[: axis % x.ndim]))
        return function(x.reshape(rows, -1), 1).reshape(x.shape)

    return normalise


def _mean_variance_torch(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
    import torch

    def normalise(inputs: Sequence[Any]) -> Tensor:
        x = inputs[0]
        over = _mean_variance_axes(node, x.ndim)
        centred = x - x.mean(over, keepdim=True)
        norm = torch.linalg.vector_norm(centred, 2, over, keepdim=True)  # of zeros it has a gradient
        return centred / (norm / math.sqrt(x.numel() / norm.numel()) + 1e-9)

    return normalise


def _lp_norm_torch(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
    import torch

    p, axis = float(node.attributes.get("p", 2)), int(node.attributes.get("axis", -1))

    def normalise(inputs: Sequence[Any]) -> Tensor:
        x = inputs[0]
        norm = torch.linalg.vector_norm(x, p, axis, keepdim=True)
        return x / torch.where(norm == 0, torch.ones_like(norm), norm)

    return normalise


def _local_response_torch(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
    """x / (bias + alpha / size * sum of squares of `size` channels around)^beta; less at the ends.

    Not torch's function: with an even size it takes the longer side before, ONNX after.
    """
    from torch.nn import functional as F

    size = int(node.attributes["size"])
    alpha, beta, bias = (
        float(node.attributes.get(name, default))
        for name, default in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))
    )
    before = (size - 1) // 2

    def normalise(inputs: Sequence[Any]) -> Tensor:
        x = inputs[0]
        squares = F.pad(x.square().reshape(len(x), 1, x.shape[1], -1), (0, 0, before, size - 1 - before))
        mean = F.avg_pool2d(squares, (size, 1), 1).reshape(x.shape)
        return x / (bias + alpha * mean) ** beta

    return normalise


register(
    OpSpec("BatchNormalization", _channel_flow, _batch_norm_torch),
    OpSpec("InstanceNormalization", _channel_flow, _instance_norm_torch),
    OpSpec("GroupNormalization", _group_norm_flow, _group_norm_torch, _group_norm_edits, since=21),
    OpSpec("LayerNormalization", _trailing_flow, _layer_norm_torch),
    OpSpec("RMSNormalization", _trailing_flow, _rms_norm_torch),
    *(
        OpSpec(name, _over_flow(_softmax_axes), _softmax_torch)
        for name in ("Softmax", "LogSoftmax", "Hardmax")
    ),
    OpSpec("MeanVarianceNormalization", _over_flow(_mean_variance_axes), _mean_variance_torch, since=9),
    OpSpec(
        "LpNormalization", _over_flow(lambda node, _: (int(node.attributes.get("axis", -1)),)), _lp_norm_torch
    ),
    OpSpec("LRN", _neighbours_flow, _local_response_torch),
)
