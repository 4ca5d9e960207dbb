"""Convolutions. Axis 1 of the data is the channels; what happens to other axes is local.

Groups: with g groups of `ci` input and `co` output channels each, either whole groups go (depthwise,
ResNeXt: the group count shrinks) or the same channels of every group (few, wide groups: the group
count stays). The kind that gives more units is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxnas.ops.channels import Factor, Ids
from onnxnas.ops.registry import register
from onnxnas.ops.spec import BatchNorm, Flow, Kept, OpSpec, Shapes, TorchFunction
from onnxnas.types import Node, Shape
from rewriters.edits import Edit, SetAttribute

if TYPE_CHECKING:
    from torch import Tensor


# A convolution by points of fewer input channels than oneDNN has in a block must not be told to stride: in
# channels_last its gradient by weights writes past its workspace (uxlfoundation/oneDNN issue 6035; blocks are of 8 by
# AVX2, 16 by AVX-512).
_BLOCK = 16


def whole_groups(groups: int, inner_in: int, inner_out: int) -> bool:
    """True when whole groups are the units of a grouped convolution."""
    return groups >= min(inner_in, inner_out)


def _same_length(node: Node, axis: int, x: Shape, y: Shape) -> bool:
    """A spatial axis along which output position i belongs to input position i (centred, stride 1)."""
    i, spatial = axis - 2, len(x) - 2
    strides = node.attributes.get("strides", (1,) * spatial)
    pads = node.attributes.get("pads", (0,) * (2 * spatial))
    return bool(strides[i] == 1 and pads[i] == pads[i + spatial] and x[axis] == y[axis])


def _flow(flow: Flow, node: Node) -> None:
    x, weight = node.inputs[:2]
    x_shape, w_shape, y_shape = flow.shape(x), flow.shape(weight), flow.shape(node.outputs[0])
    if x_shape is None or w_shape is None or y_shape is None:
        flow.freeze_all(node, "a shape is unknown")
        return
    transposed = node.op_type == "ConvTranspose"
    groups = int(node.attributes.get("group", 1))
    ids = flow.single(x, 1, node)
    passed = _spatial(flow, node, x_shape, y_shape)
    c_in, c_out = x_shape[1], y_shape[1]
    bound: dict[int, Ids | None]
    if groups == 1:
        out = flow.labels.fresh(c_out)
        bound = {1: out, 0: ids} if transposed else {0: out, 1: ids}
    elif whole_groups(groups, c_in // groups, c_out // groups):
        if ids is None:
            flow.bind_all(weight, {}, node)
            flow.set(node.outputs[0], passed)
            return
        unit = ids.reshape(groups, -1)
        flow.labels.join(unit, unit[:, :1], node.name)
        out = np.repeat(unit[:, 0], c_out // groups)
        bound = {0: ids if transposed else out}
    else:
        out = np.tile(flow.labels.fresh(c_out // groups), groups)
        inner = None
        if ids is not None:
            inner = ids.reshape(groups, -1)[0]
            flow.labels.join(ids.reshape(groups, -1), inner[None], node.name)
        bound = {1: out[: c_out // groups], 0: ids} if transposed else {0: out, 1: inner}
    flow.bind_all(weight, {axis: labels for axis, labels in bound.items() if labels is not None}, node)
    if len(node.inputs) > 2 and node.inputs[2]:
        flow.bind(node.inputs[2], 0, out, node)
    flow.set(node.outputs[0], [Factor((1,), out), *passed])


def _spatial(flow: Flow, node: Node, x: Shape, y: Shape) -> tuple[Factor, ...]:
    """Labels along other axes pass where positions keep their place (a gate that convolves over channels)."""
    passed = []
    for factor in flow.layout(node.inputs[0]):
        if factor.axes == (1,):
            continue
        axis = factor.axes[0]
        if len(factor.axes) == 1 and axis >= 2 and node.op_type == "Conv" and _same_length(node, axis, x, y):
            flow.labels.keep_order(factor.ids)
            passed.append(factor)
        else:
            flow.labels.static(
                factor, [a for a in factor.axes if a != 1], node.name, "a convolution runs along it"
            )
    return tuple(passed)


def _edits(node: Node, kept: Kept) -> list[Edit]:
    groups = int(node.attributes.get("group", 1))
    mask, x, y = kept.mask(node.inputs[0], 1), kept.shape(node.inputs[0]), kept.shape(node.outputs[0])
    if groups == 1 or mask is None or x is None or y is None:
        return []
    inner = x[1] // groups
    if not whole_groups(groups, inner, y[1] // groups):
        return []
    return [SetAttribute(node.name, "group", int(mask.sum()) // inner)]


def _macs(node: Node, shapes: Shapes) -> int:
    x, w, y = shapes(node.inputs[0]), shapes(node.inputs[1]), shapes(node.outputs[0])
    if x is None or w is None or y is None:
        return 0
    positions = x if node.op_type == "ConvTranspose" else y
    return int(np.prod(w)) * int(np.prod(positions[2:])) * positions[0]


def resolved_pads(node: Node, size: Sequence[int], kernel: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """(before, after) for each spatial axis of a Conv or pool over an input of spatial `size` (auto_pad too)."""
    n = len(kernel)
    strides = node.attributes.get("strides", (1,) * n)
    dilations = node.attributes.get("dilations", (1,) * n)
    auto = node.attributes.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        pads = []
        for i in range(n):
            out = -(-size[i] // strides[i])
            total = max((out - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 - size[i], 0)
            less, more = total // 2, total - total // 2
            pads.append((less, more) if auto == "SAME_UPPER" else (more, less))
        return tuple(pads)
    given = node.attributes.get("pads", (0,) * (2 * n)) if auto == "NOTSET" else (0,) * (2 * n)
    return tuple((int(given[i]), int(given[i + n])) for i in range(n))


def _torch(node: Node, constants: Mapping[int, NDArray[Any]], mode: BatchNorm) -> TorchFunction:
    import torch
    from torch.nn import functional as F

    groups = int(node.attributes.get("group", 1))
    strides = node.attributes.get("strides")
    dilations = node.attributes.get("dilations")
    static = node.attributes.get("auto_pad", "NOTSET") in ("NOTSET", "VALID")

    def convolve(inputs: Sequence[Any]) -> Tensor:
        x, w = inputs[0], inputs[1]
        n = w.ndim - 2
        pads = fixed or resolved_pads(node, x.shape[2:], w.shape[2:])
        stride, dilation = strides or (1,) * n, dilations or (1,) * n
        bias = inputs[2] if len(inputs) > 2 else None
        if any(a != b for a, b in pads):
            x = F.pad(x, [p for pair in reversed(pads) for p in pair])
            padding: tuple[int, ...] = (0,) * n
        else:
            padding = tuple(a for a, _ in pads)
        by_points = all(size == 1 for size in w.shape[2:]) and not any(padding)
        if by_points and w.shape[1] < _BLOCK and any(step > 1 for step in stride):
            x = x[(slice(None), slice(None), *(slice(None, None, step) for step in stride))]
            stride = (1,) * n
        function = (F.conv1d, F.conv2d, F.conv3d)[n - 1]
        return function(x, w, bias, stride, padding, dilation, groups)

    fixed = (
        resolved_pads(node, (), node.attributes.get("kernel_shape", ()))
        if static and "pads" in node.attributes
        else None
    )

    def transposed(inputs: Sequence[Any]) -> Tensor:
        x, w = inputs[0], inputs[1]
        n = w.ndim - 2
        stride, dilation = strides or (1,) * n, dilations or (1,) * n
        extra = node.attributes.get("output_padding", (0,) * n)
        pads = _transposed_pads(node, x.shape[2:], w.shape[2:], stride, dilation, extra)
        bias = inputs[2] if len(inputs) > 2 else None
        function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[n - 1]
        y = function(x, w, bias, stride, 0, 0, groups, dilation)
        for i, (before, after) in enumerate(pads):
            after -= extra[i]  # output_padding lengthens the end
            if after < 0:
                y = F.pad(y, [0, 0] * (n - 1 - i) + [0, -after])
                if bias is not None:
                    y.narrow(2 + i, y.shape[2 + i] + after, -after).add_(bias.reshape(-1, *([1] * n)))
                after = 0
            y = y.narrow(2 + i, before, y.shape[2 + i] - before - after)
        return torch.as_tensor(y)

    return transposed if node.op_type == "ConvTranspose" else convolve


def _transposed_pads(
    node: Node, size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int],
    extra: Sequence[int],
) -> tuple[tuple[int, int], ...]:  # fmt: skip
    """(before, after) to crop from the full transposed convolution, for `pads`, `auto_pad` or `output_shape`."""
    n = len(kernel)
    auto = node.attributes.get("auto_pad", "NOTSET")
    wanted = node.attributes.get("output_shape")
    if wanted is None and auto not in ("SAME_UPPER", "SAME_LOWER"):
        return resolved_pads(node, size, kernel)
    pads = []
    for i in range(n):
        length = wanted[-n + i] if wanted is not None else size[i] * stride[i]
        total = stride[i] * (size[i] - 1) + extra[i] + (kernel[i] - 1) * dilation[i] + 1 - length
        less, more = total // 2, total - total // 2
        pads.append((less, more) if auto == "SAME_UPPER" else (more, less))
    return tuple(pads)


register(*(OpSpec(name, _flow, _torch, _edits, _macs) for name in ("Conv", "ConvTranspose")))
