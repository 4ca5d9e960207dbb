"""Quantise and dequantise: y = round(x / scale) + zero point, and back.

With one scale for a whole tensor the channels pass; with one for each position of an axis, scales and zero
points go with their channels. With one for each block of positions nothing may go. A weight that is quantised
is a source of channels. Rounding has no gradient: what lies in front of a QuantizeLinear is not trained by
what lies behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from onnxnas.errors import ModelError
from onnxnas.ops.channels import at
from onnxnas.ops.elementwise import TORCH_TYPES, first_input_flow
from onnxnas.ops.registry import register
from onnxnas.ops.spec import BatchNorm, Flow, OpSpec, TorchFunction
from onnxnas.types import Node

if TYPE_CHECKING:
    from torch import Tensor

Constants = Mapping[int, NDArray[Any]]
_INTEGERS = ("uint8", "int8", "uint16", "int16")


def _flow(flow: Flow, node: Node) -> None:
    x, scale = node.inputs[:2]
    shape, scales = flow.shape(x), flow.shape(scale)
    if shape is None or scales is None or len(scales) > 1 or node.attributes.get("block_size", 0):
        flow.freeze_all(node, "its scales belong to blocks of positions")
        return
    layout = flow.data(x, node)
    axis = int(node.attributes.get("axis", 1)) % max(len(shape), 1)
    settings = [name for name in node.inputs[1:] if name]
    if prod(scales) == 1:
        for setting in settings:
            flow.freeze(setting, node, "it says how to quantise")
    else:
        layout = tuple(
            flow.labels.collapse(f, axis, node.name) if axis in f.axes and len(f.axes) > 1 else f
            for f in layout
        )
        factor = at(layout, axis)
        for setting in settings:
            flow.bind_all(setting, {} if factor is None else {0: factor.ids}, node)
    flow.set(node.outputs[0], layout)


def _target(node: Node, constants: Constants) -> str:
    """The type to quantise to: that of the zero point, else what the node says, else uint8."""
    number = int(node.attributes.get("output_dtype", 0)) or 2
    name = constants[2].dtype.name if 2 in constants else TORCH_TYPES.get(number, f"type {number}")
    if name not in _INTEGERS:
        raise ModelError(
            f"node {node.name!r}: {node.op_type} to {name} has no torch function; {', '.join(_INTEGERS)} have one"
        )
    return name


def _spread(setting: Tensor, x: Tensor, node: Node) -> Tensor:
    """A scale or zero point in a shape that broadcasts with `x`."""
    axis, block = int(node.attributes.get("axis", 1)), int(node.attributes.get("block_size", 0))
    if block:
        return setting.repeat_interleave(block, axis).narrow(axis, 0, x.shape[axis])
    if setting.numel() == 1:
        return setting.reshape(())
    return setting.reshape([-1 if a == axis % x.ndim else 1 for a in range(x.ndim)])


def _quantize_torch(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
    import torch

    kind: torch.dtype = getattr(torch, _target(node, constants))

    def quantize(inputs: Sequence[Any]) -> Tensor:
        x, scale = inputs[:2]
        zero = inputs[2] if len(inputs) > 2 else None
        to = kind if zero is None else zero.dtype
        y = torch.round(x / _spread(scale, x, node))
        if zero is not None:
            y = y + _spread(zero.to(y.dtype), x, node)
        limits = torch.iinfo(to)
        return y.clamp(limits.min, limits.max).to(to)

    return quantize


def _dequantize_torch(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
    import torch

    number = int(node.attributes.get("output_dtype", 0))

    def dequantize(inputs: Sequence[Any]) -> Tensor:
        x, scale = inputs[:2]
        zero = inputs[2] if len(inputs) > 2 else None
        wide = scale.dtype if x.is_floating_point() else torch.int32
        y = x.to(wide)
        if zero is not None:
            y = y - _spread(zero.to(wide), x, node)
        y = y.to(scale.dtype) * _spread(scale, x, node)
        return y.to(getattr(torch, TORCH_TYPES[number])) if number else y

    return dequantize


def _dynamic_torch(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
    import torch

    def quantize(inputs: Sequence[Any]) -> tuple[Tensor, ...]:
        x = inputs[0]
        low, high = x.min().clamp(max=0), x.max().clamp(min=0)
        scale = torch.where(high == low, torch.ones_like(high), (high - low) / 255)
        zero = torch.round((-low / scale).clamp(0, 255))
        y = (torch.round(x / scale) + zero).clamp(0, 255)
        return y.to(torch.uint8), scale, zero.to(torch.uint8)

    return quantize


register(
    OpSpec("QuantizeLinear", _flow, _quantize_torch, since=10),
    OpSpec("DequantizeLinear", _flow, _dequantize_torch, since=10),
    OpSpec("DynamicQuantizeLinear", first_input_flow, _dynamic_torch, since=11),
)
