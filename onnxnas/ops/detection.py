"""Choosing among boxes. What comes out are indices: no channel passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from onnxnas.ops.registry import register
from onnxnas.ops.spec import BatchNorm, OpSpec, TorchFunction, opaque
from onnxnas.types import Node

if TYPE_CHECKING:
    from torch import Tensor


def _corners(boxes: Tensor, centred: bool) -> tuple[Tensor, Tensor]:
    """N x 4 boxes -> the smaller and the larger of the two coordinates of each, N x 2.

    `centred`: (x, y, width, height); else (y, x) of any two opposite corners.
    """
    import torch

    first, second = boxes.chunk(2, -1)
    if centred:
        return first - second / 2, first + second / 2
    return torch.minimum(first, second), torch.maximum(first, second)


def _chosen(
    low: Tensor, high: Tensor, scores: Tensor, most: int, overlap: float, least: float | None
) -> Tensor:
    """Indices of at most `most` boxes, best first, none of which covers more than `overlap` of a better one."""
    import torch

    left = torch.sort(scores, descending=True, stable=True).indices
    if least is not None:
        left = left[scores[left] > least]
    area = (high - low).prod(-1)
    found: list[Tensor] = []
    while len(left) and len(found) < most:
        best, left = left[0], left[1:]
        found.append(best)
        shared = torch.minimum(high[best], high[left]) - torch.maximum(low[best], low[left])
        common = shared.clamp(min=0).prod(-1)
        both = area[best] + area[left] - common
        left = left[(common <= 0) | (common / both <= overlap)]
    return torch.stack(found) if found else scores.new_zeros(0, dtype=torch.int64)


def _torch(node: Node, constants: Mapping[int, NDArray[Any]], mode: BatchNorm) -> TorchFunction:
    import torch

    centred = bool(node.attributes.get("center_point_box", 0))

    def run(inputs: Sequence[Any]) -> Tensor:
        """Boxes B x N x 4 and scores B x C x N -> rows (batch, class, box)."""
        boxes, scores = inputs[:2]
        most, overlap, least = (
            float(v) if v is not None and v.numel() else None for v in [*inputs[2:5], *[None] * 3][:3]
        )
        rows = [torch.zeros(0, 3, dtype=torch.int64, device=boxes.device)]
        for b in range(scores.shape[0]):
            low, high = _corners(boxes[b], centred)
            for c in range(scores.shape[1]):
                index = _chosen(low, high, scores[b, c], int(most or 0), overlap or 0.0, least)
                place = torch.tensor([[b, c]], device=index.device).expand(len(index), 2)
                rows.append(torch.cat([place, index.unsqueeze(1)], 1))
        return torch.cat(rows)

    return run


register(OpSpec("NonMaxSuppression", opaque, _torch, since=10))
