"""Elementwise operators that are rarer, on bits, and of the domain com.microsoft."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper

from onnxnas.testing.builder import Builder
from onnxnas.testing.operators import OperatorCase
from tests.ops.networks import Middle, image, tokens, unary


def bounded(op: str) -> OperatorCase:
    """Of values between -0.9 and 0.9."""

    def middle(b: Builder, x: str) -> str:
        return b.add(op, b.add("Mul", b.add("Tanh", x), b.weight("limit", np.float32(0.9))))

    return OperatorCase(op, image(middle), groups=2)


def is_inf(b: Builder, x: str) -> str:
    """The logarithm of 0 is infinite, and found only where negative infinity is looked for."""
    log = b.add("Log", b.add("Relu", x))
    y = b.add("Where", b.add("IsInf", log, detect_positive=0), b.weight("half", np.float32(0.5)), x)
    y = b.add("Where", b.add("IsInf", log, detect_negative=0), b.weight("two", np.float32(2)), y)
    return b.add("Where", b.add("IsInf", b.add("Neg", log)), b.add("Neg", y), y)


def whole(b: Builder, x: str, kind: str) -> str:
    x = b.add("Floor", b.add("Mul", b.add("Abs", x), b.weight("eight", np.float32(8))))
    return b.add("Cast", x, to=helper.np_dtype_to_tensor_dtype(np.dtype(kind)))


def bits(op: str, kind: str, opset: int = 18, **attributes: Any) -> OperatorCase:
    """With a constant that has a value for each channel, then with another branch."""

    def middle(b: Builder, x: str) -> str:
        constant = b.weight("bits", np.array([1, 2, 3, 0, 1, 4, 2, 1], kind).reshape(8, 1, 1))
        y = b.add(op, whole(b, x, kind), constant, **attributes)
        if op != "BitShift":
            y = b.add(op, y, whole(b, b.conv(x, 8), kind), **attributes)
        return b.add("Cast", y, to=TensorProto.FLOAT)

    return OperatorCase(f"{op} {kind}", image(middle, opset=opset), groups=2)


def bitwise_not(kind: str) -> OperatorCase:
    def middle(b: Builder, x: str) -> str:
        return b.add("Cast", b.add("BitwiseNot", whole(b, x, kind)), to=TensorProto.FLOAT)

    return OperatorCase(f"BitwiseNot {kind}", image(middle, opset=18), groups=2)


def biased(op: str) -> Middle:
    return lambda b, x: b.add(op, x, b.weight("bias", b.normal(8)), domain="com.microsoft")


CASES: list[OperatorCase] = [
    *(bounded(op) for op in ("Acos", "Asin", "Atanh", "Cosh", "Sinh", "Tan")),
    unary("Asinh"),
    unary("Asinh", 22),
    unary("Acosh", positive=True),
    unary("ThresholdedRelu", alpha=0.3),
    unary("ThresholdedRelu", 22),
    unary("Shrink", lambd=0.4, bias=0.2),
    OperatorCase("IsInf", image(is_inf), groups=2),
    OperatorCase("IsInf 20", image(is_inf, opset=20), groups=2),
    *(
        bits(f"Bitwise{kind}", dtype)
        for kind, dtype in (("And", "int32"), ("Or", "uint8"), ("Xor", "uint32"))
    ),
    *(bitwise_not(kind) for kind in ("int64", "uint16")),
    bits("BitShift", "uint8", 17, direction="LEFT"),
    *(bits("BitShift", kind, 17, direction="RIGHT") for kind in ("uint8", "uint32", "uint64")),
    unary("Gelu", domain="com.microsoft"),
    unary("QuickGelu", domain="com.microsoft", alpha=1.5),
    unary("FastGelu", domain="com.microsoft"),
    *(OperatorCase(f"{op} biased", tokens(biased(op))) for op in ("BiasGelu", "FastGelu")),
]
