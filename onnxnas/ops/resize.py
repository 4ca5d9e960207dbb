"""Resize, Upsample, DepthToSpace, SpaceToDepth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxnas.errors import ModelError
from onnxnas.ops.registry import register
from onnxnas.ops.reshape_transpose import reshaped
from onnxnas.ops.spec import BatchNorm, Flow, Kept, OpSpec, TorchFunction
from onnxnas.types import Node, Shape
from rewriters.edits import Edit, ReplaceConstant

if TYPE_CHECKING:
    from torch import Tensor

Constants = Mapping[int, NDArray[Any]]


def _resize_flow(flow: Flow, node: Node) -> None:
    """Axes whose length stays pass; nothing may go along those that are resampled."""
    x = node.inputs[0]
    before, after = flow.shape(x), flow.shape(node.outputs[0])
    if before is None or after is None:
        flow.freeze_all(node, "the size it gives is unknown")
        return
    changed = [a for a in range(len(before)) if before[a] != after[a]]
    flow.set(node.outputs[0], flow.static(flow.layout(x), changed, node, "resampled"))


def _resize_edits(node: Node, kept: Kept) -> list[Edit]:
    sizes = kept.constant(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] else None
    old, new = kept.shape(node.outputs[0]), kept.kept_shape(node.outputs[0])
    if sizes is None or old is None or new is None or old == new or "axes" in node.attributes:
        return []
    return [ReplaceConstant(node.name, 3, np.asarray(new, np.int64))]


def _depth_flow(flow: Flow, node: Node) -> None:
    """Both are a reshape, a transposition and a reshape."""
    before, after = flow.shape(node.inputs[0]), flow.shape(node.outputs[0])
    if before is None or after is None or len(before) != 4:
        flow.freeze_all(node, "its shape is unknown")
        return
    b = int(node.attributes["blocksize"])
    n, c, h, w = before
    layout = flow.layout(node.inputs[0])
    if node.op_type == "SpaceToDepth":
        first: Shape = (n, c, h // b, b, w // b, b)
        perm = (0, 3, 5, 1, 2, 4)
    elif node.attributes.get("mode", "DCR") == "DCR":
        first, perm = (n, b, b, c // b**2, h, w), (0, 3, 4, 1, 5, 2)
    else:
        first, perm = (n, c // b**2, b, b, h, w), (0, 1, 4, 2, 5, 3)
    layout = reshaped(flow, node, layout, before, first)
    layout = tuple(f.moved([perm.index(a) for a in f.axes]) for f in layout)
    flow.set(node.outputs[0], reshaped(flow, node, layout, tuple(first[p] for p in perm), after))


def _coordinates(mode: str, n_in: int, n_out: int, scale: float) -> NDArray[np.float64]:
    """Where output positions lie in the input (ONNX Resize, coordinate_transformation_mode)."""
    i = np.arange(n_out, dtype=np.float64)
    if mode == "align_corners":
        return i * (n_in - 1) / max(n_out - 1, 1)
    if mode == "asymmetric":
        return i / scale
    if mode == "tf_half_pixel_for_nn":
        return (i + 0.5) / scale
    if mode == "pytorch_half_pixel" and n_out == 1:
        return np.zeros(1)
    if mode == "half_pixel_symmetric":
        return n_in / 2 * (1 - n_out / (n_in * scale)) + (i + 0.5) / scale - 0.5
    return (i + 0.5) / scale - 0.5


def _weights(node: Node, n_in: int, n_out: int, scale: float) -> NDArray[np.float32]:
    """The (n_out x n_in) matrix that resamples one axis."""
    kind = str(node.attributes.get("mode", "nearest"))
    place = str(
        node.attributes.get(
            "coordinate_transformation_mode", "half_pixel" if node.version >= 11 else "asymmetric"
        )
    )
    x = _coordinates(place, n_in, n_out, scale)
    matrix = np.zeros((n_out, n_in), np.float32)
    rows = np.arange(n_out)
    if kind == "nearest":
        rule = str(
            node.attributes.get("nearest_mode", "round_prefer_floor" if node.version >= 11 else "floor")
        )
        picked = {
            "floor": np.floor(x), "ceil": np.ceil(x),
            "round_prefer_floor": np.ceil(x - 0.5), "round_prefer_ceil": np.floor(x + 0.5),
        }[rule]  # fmt: skip
        matrix[rows, np.clip(picked, 0, n_in - 1).astype(int)] = 1
    elif kind == "linear":
        low = np.floor(x)
        part = (x - low).astype(np.float32)
        np.add.at(matrix, (rows, np.clip(low, 0, n_in - 1).astype(int)), 1 - part)
        np.add.at(matrix, (rows, np.clip(low + 1, 0, n_in - 1).astype(int)), part)
    else:
        a = float(node.attributes.get("cubic_coeff_a", -0.75))
        low = np.floor(x)
        for k in range(-1, 3):
            d = np.abs(x - low - k)
            near = (a + 2) * d**3 - (a + 3) * d**2 + 1
            far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
            weight = np.where(d <= 1, near, np.where(d < 2, far, 0.0))
            np.add.at(matrix, (rows, np.clip(low + k, 0, n_in - 1).astype(int)), weight.astype(np.float32))
    return matrix


def _resize_torch(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
    import torch

    if node.attributes.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        raise ModelError(
            f"node {node.name!r}: {node.op_type} by tf_crop_and_resize, which cuts out a region, has no torch "
            "function; the model can be pruned and measured, but not trained"
        )
    matrices: dict[tuple[int, int, float], Tensor] = {}

    def resize(inputs: Sequence[Any]) -> Tensor:
        x = inputs[0]
        for axis, (length, scale) in enumerate(_targets(node, constants, inputs, tuple(x.shape))):
            n = x.shape[axis]
            if length == n and scale == 1.0:
                continue
            key = (n, length, scale)
            if key not in matrices:
                matrices[key] = torch.from_numpy(_weights(node, n, length, scale))
            matrix = matrices[key].to(device=x.device, dtype=x.dtype)
            x = torch.tensordot(x, matrix, dims=([axis], [1])).movedim(-1, axis)
        return x

    return resize


def _targets(
    node: Node, constants: Constants, inputs: Sequence[Any], shape: Shape
) -> list[tuple[int, float]]:
    """(length, scale) for each axis."""
    scale_at = 1 if node.op_type == "Upsample" or node.version < 11 else 2
    known = {
        **constants,
        **{i: v.detach().cpu().numpy() for i, v in enumerate(inputs) if i and v is not None},
    }
    sizes = known.get(3) if node.op_type == "Resize" and node.version >= 11 else None
    scales = node.attributes.get("scales", known.get(scale_at))
    axes = [int(a) % len(shape) for a in node.attributes.get("axes", range(len(shape)))]
    result = [(n, 1.0) for n in shape]
    for i, axis in enumerate(axes):
        if sizes is not None and len(sizes):
            result[axis] = (int(sizes[i]), int(sizes[i]) / shape[axis])
        elif scales is not None:
            scale = float(np.float32(scales[i]))
            result[axis] = (int(np.floor(shape[axis] * scale)), scale)
    return result


def _depth_torch(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
    b = int(node.attributes["blocksize"])
    to_space = node.op_type == "DepthToSpace"
    column_row = node.attributes.get("mode", "DCR") == "CRD"

    def run(inputs: Sequence[Any]) -> Tensor:
        x = inputs[0]
        n, c, h, w = x.shape
        if not to_space:
            return (
                x.reshape(n, c, h // b, b, w // b, b)
                .permute(0, 3, 5, 1, 2, 4)
                .reshape(n, c * b * b, h // b, w // b)
            )
        if column_row:
            return (
                x.reshape(n, c // b**2, b, b, h, w)
                .permute(0, 1, 4, 2, 5, 3)
                .reshape(n, c // b**2, h * b, w * b)
            )
        return (
            x.reshape(n, b, b, c // b**2, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, c // b**2, h * b, w * b)
        )

    return run


register(
    OpSpec("Resize", _resize_flow, _resize_torch, _resize_edits),
    OpSpec("Upsample", _resize_flow, _resize_torch),
    OpSpec("DepthToSpace", _depth_flow, _depth_torch),
    OpSpec("SpaceToDepth", _depth_flow, _depth_torch),
)
