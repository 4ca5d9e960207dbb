"""Quantised activations and weights. The steps are wide, so that no rounding hangs on the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from onnxnas.testing.builder import Builder
from onnxnas.testing.operators import OperatorCase
from tests.ops.networks import image, tokens


def quantized(name: str, kind: str = "", zero: int = 0, opset: int = 17, **attributes: Any) -> OperatorCase:
    """There and back with one scale; without a `kind` there is no zero point."""

    def middle(b: Builder, x: str) -> str:
        settings = [b.weight("scale", np.array(0.25, np.float32))]
        if kind:
            settings.append(b.weight("zero", np.array(zero, kind)))
        return b.add("DequantizeLinear", b.add("QuantizeLinear", x, *settings, **attributes), *settings)

    return OperatorCase(f"QuantizeLinear {name}", image(middle, opset=opset), groups=2)


def by_channel(b: Builder, x: str) -> str:
    scales = b.weight("scale", np.linspace(0.2, 0.4, 8).astype(np.float32))
    zeros = b.weight("zero", np.arange(8).astype(np.int8))
    y = b.add("QuantizeLinear", x, scales, zeros, axis=1)
    return b.add("DequantizeLinear", y, scales, zeros, axis=1)


def trained(b: Builder, x: str) -> str:
    """What quantisation-aware training leaves: a float weight there and back by filter; a bias of int32."""
    weight = b.weight("w", b.normal(6, 8, 3, 3, scale=0.1))
    scales, zeros = b.weight("scale", b.rng.uniform(0.1, 0.2, 6)), b.weight("zero", np.zeros(6, np.int8))
    weight = b.add("QuantizeLinear", weight, scales, zeros, shape=(), axis=0)
    weight = b.add("DequantizeLinear", weight, scales, zeros, shape=(), axis=0)
    bias = b.weight("b", b.rng.integers(-9, 9, 6).astype(np.int32))
    bias = b.add(
        "DequantizeLinear", bias, b.weight("bias_scale", b.rng.uniform(0.01, 0.02, 6)), shape=(), axis=0
    )
    return b.add("Conv", x, weight, bias, shape=(6, 8, 8), kernel_shape=[3, 3], pads=[1] * 4)


def product(b: Builder, x: str) -> str:
    """A Gemm with a weight of int8."""
    x = b.reshape(x, (0, 512), (512,))
    weight = b.weight("w", b.rng.integers(-100, 100, (6, 512)).astype(np.int8))
    weight = b.add(
        "DequantizeLinear", weight, b.weight("scale", b.rng.uniform(0.001, 0.002, 6)), shape=(), axis=0
    )
    x = b.add("Gemm", x, weight, b.weight("b", b.normal(6)), shape=(6,), transB=1)
    return b.reshape(x, (0, 6, 1, 1), (6, 1, 1))


def weight(name: str, shape: tuple[int, ...], opset: int, groups: int, **attributes: Any) -> OperatorCase:
    """A matrix of int8 with scales and zero points of `shape`."""

    def middle(b: Builder, x: str) -> str:
        matrix = b.weight("w", b.rng.integers(-100, 100, (8, 8)).astype(np.int8))
        scales = b.weight("scale", b.rng.uniform(0.005, 0.01, shape))
        zeros = b.weight("zero", b.rng.integers(-9, 9, shape).astype(np.int8))
        matrix = b.add("DequantizeLinear", matrix, scales, zeros, shape=(), **attributes)
        return b.add("MatMul", x, matrix)

    return OperatorCase(f"DequantizeLinear {name}", tokens(middle, opset=opset), groups=groups)


def dynamic(b: Builder, x: str) -> str:
    """Of quarters, so that what is rounded is the same everywhere."""
    quarter = b.weight("quarter", np.float32(0.25))
    x = b.add("Mul", b.add("Round", b.add("Div", x, quarter)), quarter)
    y = b.add("DynamicQuantizeLinear", x, outputs=3)
    return b.add("DequantizeLinear", y, *(y.replace("_output_0", f"_output_{i}") for i in (1, 2)))


CASES: list[OperatorCase] = [
    quantized("uint8", "uint8", 9),
    quantized("int8", "int8", opset=10),
    quantized("no zero point"),
    quantized("saturated", "int8", 127, 19),
    quantized("uint16", "uint16", 1000, 21),
    quantized("output type", opset=21, output_dtype=TensorProto.INT8),
    OperatorCase("QuantizeLinear by channel", image(by_channel), groups=2),
    OperatorCase("QuantizeLinear weight", image(trained), groups=3),
    OperatorCase("DequantizeLinear Gemm", image(product), groups=3),
    weight("by column", (8,), 13, 2, axis=1),
    weight("blocks", (4, 8), 21, 0, axis=0, block_size=2),
    OperatorCase("DynamicQuantizeLinear", image(dynamic), groups=2),
]
