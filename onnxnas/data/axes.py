"""Which axis of a network's output holds the classes: `[n, K, H, W]`, `[n, H, W, K]`, `[n, T, K]` or `[n, K]`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxnas.data import validate
from onnxnas.data.types import Array
from onnxnas.types import TensorInfo


def class_axis(
    outputs: Sequence[TensorInfo] | None, inputs: Sequence[TensorInfo] = (), y: Array | None = None
) -> int:
    """The axis of the first output, counted with the batch's: 1 or the last one.

    It is the one that labels `y` of classes lack; else the one without which an output of rank 4 has the proportions
    of the input's picture; else the last of three, or where an input in rows of pixels has its channels.
    """
    shape = outputs[0].shape if outputs else None
    if shape is None or len(shape) < 3:
        return 1
    last = len(shape) - 1
    declared = validate.output_dims(outputs) or shape[1:]
    if y is not None and y.dtype.kind in "iub" and y.ndim == len(shape) - 1:
        for axis in (1, last):
            if validate.fits(y.shape[1:], [*declared[: axis - 1], *declared[axis:]]):
                return axis
    for info in inputs:
        dims = info.shape
        if dims is None or len(dims) != 4 or len(shape) != 4:
            continue
        nhwc = validate.model_layout(validate.expected_dims(info)) == "nhwc"
        picture = dims[1:3] if nhwc else dims[2:]
        fitting = [axis for axis in (1, last) if _alike(_without(shape, axis), picture)]
        return fitting[0] if len(fitting) == 1 else last if nhwc else 1
    return last if len(shape) == 3 else 1


def _without(shape: Sequence[int], axis: int) -> tuple[int, ...]:
    return (*shape[1:axis], *shape[axis + 1 :])


def _alike(mine: Sequence[int], picture: Sequence[int]) -> bool:
    """Whether both sides of a picture were scaled alike, up to rounding to whole pixels."""
    tall, wide = np.array(mine) / np.array(picture)
    slack = 1 / min(picture)
    return bool(abs(tall - wide) <= slack)
