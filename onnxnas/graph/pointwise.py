"""A model of one layer, made from numbers: what a runtime computes is tried with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

POINTS = 8  # down and across


def pointwise(weight: NDArray[np.floating[Any]]) -> onnx.ModelProto:
    """x [1, in, 8, 8] -> y [1, out, 8, 8]: a convolution by points with this weight (out, in), and Relu."""
    c_out, c_in = weight.shape
    values = np.asarray(weight, np.float32).reshape(c_out, c_in, 1, 1)
    body = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], "conv", kernel_shape=[1, 1]),
            helper.make_node("Relu", ["c"], ["y"], "relu"),
        ],
        "pointwise",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, c_in, POINTS, POINTS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, c_out, POINTS, POINTS])],
        [numpy_helper.from_array(values, "w")],
    )
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
