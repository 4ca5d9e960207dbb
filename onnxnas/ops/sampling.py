"""Values read between the pixels, at computed places: channels pass on axis 1, nothing else does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from onnxnas.ops.registry import register
from onnxnas.ops.spec import BatchNorm, Flow, OpSpec, TorchFunction
from onnxnas.types import Node

if TYPE_CHECKING:
    from torch import Tensor

Constants = Mapping[int, NDArray[Any]]
_MODES = {"linear": "bilinear", "cubic": "bicubic"}  # since opset 20; the older names are torch's


def _flow(flow: Flow, node: Node) -> None:
    x = node.inputs[0]
    for place in node.inputs[1:]:
        flow.freeze(place, node, "it says where to read")
    others = [a for f in flow.layout(x) for a in f.axes if a != 1]
    flow.set(node.outputs[0], flow.static(flow.layout(x), others, node, "read between its positions"))


def _grid_torch(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
    from torch.nn.functional import grid_sample

    kind, border = (
        str(node.attributes.get("mode", "linear")),
        str(node.attributes.get("padding_mode", "zeros")),
    )
    corners = bool(node.attributes.get("align_corners", 0))
    return lambda inputs: grid_sample(inputs[0], inputs[1], _MODES.get(kind, kind), border, corners)


def _corners(at: Tensor, length: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """((index, weight) below, (index, weight) above) of places along an axis; weight 0 far outside of it."""
    import torch

    inside = (at >= -1) & (at <= length)
    at = at.clamp(0, length - 1)
    low = at.floor()
    part = at - low
    index = low.long()
    zero = torch.zeros_like(part)
    below, above = (torch.where(inside, weight, zero) for weight in (1 - part, part))
    return (index, below), ((index + 1).clamp(max=length - 1), above)


def _places(start: Tensor, size: Tensor, bins: int, ratio: int) -> Tensor:
    """Where a box is read along an axis: (bins, samples in each bin)."""
    import torch

    samples = ratio if ratio > 0 else max(int(torch.ceil(size / bins)), 0)
    number = torch.arange(bins, device=start.device).unsqueeze(1)
    part = (torch.arange(samples, device=start.device) + 0.5) / max(samples, 1)
    return start + (number + part) * (size / bins)


def _roi_torch(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
    """RoiAlign (He et al., Mask R-CNN, 2017, section 3).

    "max" is the largest of the four neighbours' *weighted* values over a bin's samples, as in the ONNX
    reference and ONNX Runtime (not the largest of the interpolated samples).
    """
    import torch

    height, width = int(node.attributes.get("output_height", 1)), int(node.attributes.get("output_width", 1))
    ratio, scale = (
        int(node.attributes.get("sampling_ratio", 0)),
        float(node.attributes.get("spatial_scale", 1.0)),
    )
    place = node.attributes.get(
        "coordinate_transformation_mode", "half_pixel" if node.version >= 16 else "output_half_pixel"
    )
    half = str(place) == "half_pixel"
    maximum = str(node.attributes.get("mode", "avg")) == "max"

    def one(x: Tensor, roi: Tensor) -> Tensor:
        """C x H x W and (x1, y1, x2, y2) -> C x height x width."""
        first, last = (roi * scale - (0.5 if half else 0.0)).chunk(2)
        size = last - first if half else (last - first).clamp(min=1.0)
        ys, xs = _places(first[1], size[1], height, ratio), _places(first[0], size[0], width, ratio)
        if not ys.numel() or not xs.numel():
            return x.new_zeros(x.shape[0], height, width)
        values = torch.stack(
            [
                x[:, row][:, :, column] * (wy[:, None] * wx)
                for row, wy in _corners(ys.reshape(-1), x.shape[1])
                for column, wx in _corners(xs.reshape(-1), x.shape[2])
            ]
        )
        values = values.amax(0) if maximum else values.sum(0)
        values = values.reshape(-1, height, ys.shape[1], width, xs.shape[1])
        return values.amax((2, 4)) if maximum else values.mean((2, 4))

    def run(inputs: Sequence[Any]) -> Tensor:
        x, rois, images = inputs
        if not len(rois):
            return x.new_zeros(0, x.shape[1], height, width)
        return torch.stack([one(x[i], roi) for i, roi in zip(images.tolist(), rois, strict=True)])

    return run


register(
    OpSpec("GridSample", _flow, _grid_torch, since=16),
    OpSpec("RoiAlign", _flow, _roi_torch, since=10),
)
