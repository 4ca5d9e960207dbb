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


def weight(name: str, shape: tuple[int, ...], opset: int, **attributes: Any) -> OperatorCase:
    """A matrix of int8 with scales and zero points of `shape`."""

    def middle(b: Builder, x: str) -> str:
        matrix = b.weight("w", b.rng.integers(-100, 100, (8, 8)).astype(np.int8))
        scales = b.weight("scale", b.rng.uniform(0.005, 0.01, shape))
        zeros = b.weight("zero", b.rng.integers(-9, 9, shape).astype(np.int8))
        matrix = b.add("DequantizeLinear", matrix, scales, zeros, shape=(), **attributes)
        return b.add("MatMul", x, matrix)

    return OperatorCase(f"DequantizeLinear {name}", tokens(middle, opset=opset), groups=0)


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
    OperatorCase("QuantizeLinear by channel", image(by_channel), groups=0),
    weight("by column", (8,), 13, axis=1),
    weight("blocks", (4, 8), 21, axis=0, block_size=2),
    OperatorCase("DynamicQuantizeLinear", image(dynamic), groups=2),
]
