"""Operators of detectors, and sampling at computed places."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from onnxnas.testing.builder import Builder
from onnxnas.testing.operators import OperatorCase
from tests.ops.networks import image, plain


def suppression(name: str, most: int = 3, least: bool = True, **attributes: Any) -> OperatorCase:
    """Boxes and scores of three classes are made from the tokens; rows and their order count."""

    def middle(b: Builder, x: str) -> str:
        boxes = b.add("Sigmoid", b.linear(x, 4, "boxes"))
        scores = b.transpose(b.linear(x, 3, "scores"), (0, 2, 1))
        settings = [b.weight("most", np.array([most])), b.weight("overlap", np.array([0.3], np.float32))]
        if least:
            settings.append(b.weight("least", np.array([-0.4], np.float32)))
        rows = b.add("NonMaxSuppression", boxes, scores, *settings, shape=(), **attributes)
        rows = b.add("Cast", rows, to=TensorProto.FLOAT, shape=())
        rows = b.add("Mul", rows, b.weight("w", np.array([[9, 3, 1]], np.float32)), shape=())
        place = b.add("CumSum", rows, b.weight("axis", np.array(0)), shape=())
        return b.add("Add", x, b.add("ReduceSum", place, shape=(), keepdims=0))

    return plain(f"NonMaxSuppression {name}", middle)


ROIS = [[0, 0, 7, 7], [1.2, 0.5, 4.1, 6.3], [-3, -1, 2.5, 12], [3, 3, 3.2, 3.1], [6, 5, 4, 2]]


def roi_align(name: str, opset: int = 16, **attributes: Any) -> OperatorCase:
    settings = {"output_height": 2, "output_width": 3, "spatial_scale": 0.9, **attributes}

    def middle(b: Builder, x: str) -> str:
        rois = b.weight("rois", np.array(ROIS, np.float32))
        images = b.weight("images", np.zeros(len(ROIS), np.int64))
        return b.add("RoiAlign", x, rois, images, shape=(8, 2, 3), **settings)

    return OperatorCase(f"RoiAlign {name}", image(middle, opset=opset), groups=2)


def grid_sample(opset: int, **attributes: Any) -> OperatorCase:
    """At places that a convolution finds, some of them outside."""

    def middle(b: Builder, x: str) -> str:
        places = b.add("Mul", b.add("Tanh", b.conv(x, 2)), b.weight("reach", np.float32(1.3)))
        return b.add("GridSample", x, b.transpose(places, (0, 2, 3, 1)), **attributes)

    return OperatorCase(f"GridSample {attributes}", image(middle, opset=opset), groups=2)


def grid_sample_volume(b: Builder, x: str) -> str:
    places = b.reshape(b.add("Tanh", b.conv(x, 3)), (0, 3, 2, 4, 8), (3, 2, 4, 8))
    y = b.reshape(x, (0, 0, 2, 4, 8), (8, 2, 4, 8))
    y = b.add("GridSample", y, b.transpose(places, (0, 2, 3, 4, 1)), mode="linear")
    return b.reshape(y, (0, 0, 8, 8), (8, 8, 8))


CASES: list[OperatorCase] = [
    suppression("plain"),
    suppression("centred", center_point_box=1),
    suppression("all scores", 1, least=False),
    roi_align("adaptive"),
    roi_align("samples", sampling_ratio=2),
    roi_align("plain coordinates", coordinate_transformation_mode="output_half_pixel"),
    roi_align("10", 15, sampling_ratio=3),
    roi_align("max", mode="max", sampling_ratio=2),
    roi_align("max adaptive", mode="max"),
    grid_sample(16),
    grid_sample(16, mode="bicubic", padding_mode="border", align_corners=1),
    grid_sample(16, mode="nearest", padding_mode="reflection"),
    grid_sample(20, mode="linear", padding_mode="reflection", align_corners=1),
    grid_sample(20, mode="cubic"),
    grid_sample(22, mode="nearest", align_corners=1),
    OperatorCase("GridSample volume", image(grid_sample_volume, opset=20), groups=2),
]
