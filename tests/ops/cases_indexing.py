"""Operators that find, pick, scatter and turn round."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from onnxnas.testing.builder import Builder
from onnxnas.testing.operators import OperatorCase
from tests.ops.cases_recurrent import last_step
from tests.ops.networks import plain, tokens


def total(b: Builder, x: str, y: str) -> str:
    """`x` plus the sum of all of `y`."""
    y = b.add("Cast", y, to=TensorProto.FLOAT, shape=())
    return b.add("Add", x, b.add("ReduceSum", y, shape=(), keepdims=0))


def positive(b: Builder, x: str) -> str:
    return b.add("Greater", x, b.weight("zero", np.float32(0)))


def non_zero(b: Builder, x: str) -> str:
    places = b.add("NonZero", positive(b, x), shape=())
    return total(b, x, b.add("Mul", places, b.weight("value", np.array([[5], [1], [2]])), shape=()))


def first(b: Builder, x: str, count: int) -> str:
    """The first `count` channels."""
    return b.add("Slice", x, *[b.weight("s", np.array([v])) for v in (0, count, 2)], shape=(5, count))


def scatter(op: str, opset: int, reduction: str = "") -> OperatorCase:
    """Onto the largest channel; with a reduction twice, once by its place from the end."""

    def middle(b: Builder, x: str) -> str:
        index = b.add("ArgMax", x, axis=2, keepdims=1, shape=(5, 1))
        if not reduction:
            return b.add(op, x, index, first(b, x, 1), axis=2)
        other = b.add("Sub", index, b.weight("width", np.array(8)))
        index = b.add("Concat", index, other, axis=2, shape=(5, 2))
        return b.add(op, x, index, first(b, x, 2), axis=2, reduction=reduction)

    return OperatorCase(f"{op} {opset} {reduction}", tokens(middle, opset=opset), groups=0)


def scatter_nd(reduction: str) -> OperatorCase:
    def middle(b: Builder, x: str) -> str:
        index = b.weight("index", np.array([[0, 1], [0, 1], [-1, -2]]))
        return b.add("ScatterND", x, index, b.weight("updates", b.normal(3, 8)), reduction=reduction)

    return OperatorCase(f"ScatterND {reduction}", tokens(middle, opset=18), groups=0)


def compress(b: Builder, x: str) -> str:
    """The steps whose mean is positive: how many is known only when the network runs."""
    steps = positive(b, b.add("ReduceMean", x, axes=[0, 2], keepdims=0, shape=()))
    return total(b, x, b.add("Compress", x, steps, axis=1, shape=()))


def compress_flat(b: Builder, x: str) -> str:
    flat = b.add("Reshape", positive(b, x), b.weight("flat", np.array([-1])), shape=())
    return total(b, x, b.add("Compress", x, flat, shape=()))


def eye_like(**attributes: Any) -> OperatorCase:
    def middle(b: Builder, x: str) -> str:
        y = b.add("ReduceMean", x, axes=[0], keepdims=0, shape=())
        y = b.add("EyeLike", y, shape=(), **attributes)
        return b.add("Add", x, b.add("Cast", y, to=TensorProto.FLOAT, shape=()))

    return plain(f"EyeLike {attributes}", middle)


def reverse(b: Builder, x: str) -> str:
    return b.add("ReverseSequence", x, last_step(b, x, 1), batch_axis=0, time_axis=1)


def reverse_time_first(b: Builder, x: str) -> str:
    lengths = last_step(b, x, 1)
    y = b.add("Transpose", x, perm=[1, 0, 2])
    return b.add("Transpose", b.add("ReverseSequence", y, lengths), perm=[1, 0, 2])


def table_rows(b: Builder, x: str) -> str:
    """Rows of a table by numbers that come in, added to what passes."""
    last = b.weight("last", np.array([2]))
    rows = b.add("Unsqueeze", b.input("rows", (5,), TensorProto.INT64), last, shape=(5, 1))
    return b.add("Add", x, b.add("GatherND", b.weight("table", b.normal(2, 8)), rows, shape=(5, 8)))


def picked_inside(b: Builder, x: str) -> str:
    """One of five tokens for each sample: the axis behind the one that is picked from."""
    which = b.add("ArgMax", b.linear(x, 1, "score"), shape=(1,), axis=1, keepdims=0)
    picked = b.add("GatherND", x, which, shape=(8,), batch_dims=1)
    return b.add("Add", x, b.add("Unsqueeze", picked, b.weight("a", np.array([1])), shape=(1, 8)))


CASES: list[OperatorCase] = [
    OperatorCase("GatherND rows", tokens(table_rows)),
    OperatorCase("GatherND token", tokens(picked_inside)),
    OperatorCase("TopK 9", tokens(lambda b, x: b.add("TopK", x, k=8, axis=-1, outputs=2), opset=9), groups=0),
    plain("NonZero", non_zero),
    scatter("Scatter", 10),
    scatter("ScatterElements", 11),
    *(scatter("ScatterElements", 18, how) for how in ("add", "mul", "min", "max")),
    *(scatter_nd(how) for how in ("add", "mul", "min", "max")),
    plain("Compress", compress),
    plain("Compress flat", compress_flat),
    eye_like(),
    eye_like(k=1, dtype=TensorProto.INT64),
    OperatorCase("ReverseSequence", tokens(reverse)),
    OperatorCase("ReverseSequence time first", tokens(reverse_time_first)),
]
