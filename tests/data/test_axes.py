"""Where an output has its classes."""

from __future__ import annotations

import numpy as np
import pytest

from onnxnas.data.axes import class_axis
from onnxnas.types import TensorInfo


def info(*shape: int) -> TensorInfo:
    return TensorInfo("t", np.dtype(np.float32), shape, ("n", *shape[1:]))


@pytest.mark.parametrize(
    ("image", "output", "axis"),
    [
        ((1, 3, 64, 48), (1, 21, 64, 48), 1),
        ((1, 257, 257, 3), (1, 257, 257, 21), 3),
        ((1, 257, 257, 3), (1, 33, 33, 21), 3),  # an eighth of the picture, rounded up
        ((1, 3, 180, 320), (1, 180, 320, 2), 3),  # columns in, rows out
        ((1, 3, 32, 32), (1, 32, 32, 32), 1),  # nothing tells: as the input
        ((1, 32, 32, 3), (1, 32, 32, 32), 3),
        ((1, 3, 32, 32), (1, 10), 1),
        ((1, 3, 32, 320), (1, 80, 97), 2),  # positions of a text
    ],
)
def test_by_the_picture(image: tuple[int, ...], output: tuple[int, ...], axis: int) -> None:
    assert class_axis([info(*output)], [info(*image)]) == axis


def test_labels_decide_and_nothing_known_is_the_second() -> None:
    y = np.zeros((5, 32, 32), np.int64)
    assert class_axis([info(1, 32, 32, 7)], [info(1, 3, 32, 32)], y) == 3
    assert class_axis([info(1, 7, 32, 32)], [info(1, 32, 32, 3)], y) == 1
    assert class_axis(None) == 1
