"""Attention in the forms in which it is written."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import onnx

from onnxnas.testing.builder import Builder
from onnxnas.testing.operators import OperatorCase
from tests.ops.networks import tokens


def multi_query(b: Builder, x: str) -> str:
    """Three query heads, one key, and one value of six channels: head and value channel become one axis."""
    heads, size, wide = 3, 4, 6
    q = b.reshape(b.linear(x, heads * size, "q"), (0, 5, heads, size), (5, heads, size))
    q = b.transpose(q, (0, 2, 1, 3))
    first = b.weight("first", np.array([1]))
    k = b.add("Unsqueeze", b.transpose(b.linear(x, size, "k"), (0, 2, 1)), first, shape=(1, size, 5))
    v = b.add("Unsqueeze", b.linear(x, wide, "v"), first, shape=(1, 5, wide))
    a = b.add("Softmax", b.add("MatMul", q, k, shape=(heads, 5, 5)), axis=-1)
    y = b.transpose(b.add("MatMul", a, v, shape=(heads, 5, wide)), (0, 2, 1, 3))
    return b.reshape(y, (0, 5, heads * wide), (5, heads * wide))


def einsum_attention(b: Builder, x: str) -> str:
    """Heads by a Reshape; products of queries and keys, and of what comes of them with values, by Einsum."""
    heads, size = 2, 4
    q, k, v = (
        b.reshape(b.linear(x, heads * size, name), (0, 5, heads, size), (5, heads, size)) for name in "qkv"
    )
    a = b.add("Einsum", q, k, equation="bihd,bjhd->bhij", shape=(heads, 5, 5))
    y = b.add("Einsum", b.add("Softmax", a, axis=-1), v, equation="bhij,bjhd->bihd", shape=(5, heads, size))
    return b.reshape(y, (0, 5, heads * size), (5, heads * size))


def dense_einsum(b: Builder, x: str) -> str:
    """Weights of rank 3, as Flax and Keras write attention: heads and head size are axes from the start."""

    def make(x: str, name: str) -> str:
        weight = b.weight(name, b.normal(8, 4, 6, scale=0.3))
        return b.add("Einsum", x, weight, equation="abc,cde->abde", shape=(5, 4, 6))

    a = b.add("Einsum", make(x, "q"), make(x, "k"), equation="aecd,abcd->acbe", shape=(4, 5, 5))
    y = b.add(
        "Einsum", b.add("Softmax", a, axis=2), make(x, "v"), equation="acbe,abcd->aecd", shape=(5, 4, 6)
    )
    out = b.weight("out", b.normal(4, 6, 8, scale=0.3))
    return b.add("Einsum", y, out, equation="abcd,cde->abe", shape=(5, 8))


def batch_einsum(b: Builder, x: str) -> str:
    y = b.add("Einsum", x, b.linear(x, 8, "other"), equation="bij,bkj->bik", shape=(5, 5))
    return b.add("Einsum", y, x, equation="...ij,...jk", shape=(5, 8))


def rotary(b: Builder, x: str, part: int = 2) -> str:
    """`part` channels of each head of four are turned, the others pass, and both are put side by side again."""
    heads, size = 3, 4
    q = b.reshape(b.linear(x, heads * size, "q"), (0, 5, heads, size), (5, heads, size))
    axis = b.weight("axis", np.array([3]))
    ends = [b.weight(f"end{i}", np.array([i])) for i in (0, part, 4)]
    turned, passed = (
        b.add("Slice", q, a, e, axis, shape=(5, heads, n))
        for (a, e), n in zip(pairwise(ends), (part, 4 - part), strict=True)
    )
    angle = b.normal(5, 1, part)
    turned = b.add(
        "Add",
        b.add("Mul", turned, b.weight("cos", np.cos(angle))),
        b.add("Mul", b.add("Neg", turned), b.weight("sin", np.sin(angle))),
    )
    y = b.add("Concat", turned, passed, axis=3, shape=(5, heads, size))
    return b.reshape(y, (0, 5, heads * size), (5, heads * size))


def open_steps(middle: Callable[[Builder, str], str]) -> Callable[[], onnx.ModelProto]:
    """`tokens` of any number, not five."""

    def make() -> onnx.ModelProto:
        model = tokens(middle)()
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[1].dim_param = "T"
        del model.graph.value_info[:]
        return model

    return make


def computed_heads(b: Builder, x: str) -> str:
    """Flat tokens become samples, tokens, heads and head sizes again: only the run knows how many."""
    flat = b.reshape(b.linear(x, 8, "q"), (-1, 8), (8,))
    sizes = [b.add("Shape", x, shape=(), start=i, end=i + 1) for i in (0, 1)]
    heads = b.weight("heads", np.array([2, 4]))
    y = b.add("Reshape", flat, b.add("Concat", *sizes, heads, axis=0, shape=()), shape=(5, 2, 4))
    y = b.reshape(b.add("Relu", y), (-1, 8), (8,))
    width = b.weight("width", np.array([8]))
    return b.add("Reshape", y, b.add("Concat", *sizes, width, axis=0, shape=()), shape=(5, 8))


def repeated_heads(b: Builder, x: str) -> str:
    """Each of two heads is read twice: repeated on an axis beside it, which then becomes one with it."""
    y = b.transpose(b.reshape(b.linear(x, 8, "v"), (0, 5, 2, 4), (5, 2, 4)), (0, 2, 1, 3))
    y = b.add("Unsqueeze", y, b.weight("axis", np.array([2])), shape=(2, 1, 5, 4))
    y = b.add("Expand", y, b.weight("twice", np.array([1, 1, 2, 1, 1])), shape=(2, 2, 5, 4))
    y = b.transpose(b.reshape(y, (0, 4, 5, 4), (4, 5, 4)), (0, 2, 1, 3))
    return b.reshape(y, (0, 5, 16), (5, 16))


CASES: list[OperatorCase] = [
    OperatorCase("Expand heads", tokens(repeated_heads), groups=2),
    OperatorCase("rotary", tokens(rotary), groups=2),
    OperatorCase("rotary in full", tokens(lambda b, x: rotary(b, x, 4)), groups=2),
    OperatorCase("Reshape computed", open_steps(computed_heads), groups=2),
    OperatorCase("Einsum attention", tokens(einsum_attention), groups=2),
    OperatorCase("Einsum dense", tokens(dense_einsum), groups=4),
    OperatorCase("Einsum implicit", tokens(batch_einsum), groups=1),
    OperatorCase("multi-query attention", tokens(multi_query), groups=2),
]
