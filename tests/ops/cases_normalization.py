"""Norms over neighbouring channels, over chosen axes and in windows."""

from __future__ import annotations

from typing import Any

from onnxnas.testing.operators import OperatorCase
from tests.ops.networks import image, pool, tokens


def mean_variance(name: str, zeros: bool = True, **attributes: Any) -> OperatorCase:
    op = "MeanVarianceNormalization"
    return OperatorCase(f"{op} {name}", image(lambda b, x: b.add(op, x, **attributes)), groups=2, zeros=zeros)


def lp_norm(axis: int, opset: int = 17, **attributes: Any) -> OperatorCase:
    op = "LpNormalization"
    return OperatorCase(
        f"{op} {axis}", tokens(lambda b, x: b.add(op, x, axis=axis, **attributes), opset=opset)
    )


CASES: list[OperatorCase] = [
    OperatorCase("LRN", image(lambda b, x: b.add("LRN", x, size=3, alpha=0.6, beta=0.5, bias=2.0)), groups=2),
    OperatorCase("LRN wide", image(lambda b, x: b.add("LRN", x, size=5, alpha=0.5)), groups=2),
    mean_variance("plain"),
    mean_variance("pixels", axes=[2, 3]),
    mean_variance("all", zeros=False, axes=[0, 1, 2, 3]),
    lp_norm(1),
    lp_norm(-1, p=1),
    lp_norm(2, 22),
    OperatorCase("Hardmax", tokens(lambda b, x: b.add("Hardmax", x, axis=1))),
    OperatorCase("Hardmax channels", tokens(lambda b, x: b.add("Hardmax", x, axis=-1)), zeros=False),
    OperatorCase("Hardmax 11", tokens(lambda b, x: b.add("Hardmax", x, axis=1), opset=11), zeros=False),
    pool("LpPool", (8, 4, 4), kernel_shape=[2, 2], strides=[2, 2]),
    pool("LpPool", (8, 4, 4), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 0, 0, 1], p=3),
    pool("LpPool", (8, 4, 4), kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER", p=1),
    pool("LpPool", (8, 3, 4), 18, kernel_shape=[3, 3], strides=[2, 2], dilations=[2, 1], ceil_mode=1),
    pool("LpPool", (8, 3, 3), 22, kernel_shape=[2, 2], strides=[3, 3], pads=[1, 1, 1, 1], ceil_mode=1),
    pool("GlobalLpPool", (8, 1, 1)),
    pool("GlobalLpPool", (8, 1, 1), p=3),
]
