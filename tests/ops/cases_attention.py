"""Attention in the forms in which it is written."""

from __future__ import annotations

import numpy as np

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


CASES: list[OperatorCase] = [
    OperatorCase("Einsum attention", tokens(einsum_attention), groups=2),
    OperatorCase("Einsum dense", tokens(dense_einsum), groups=4),
    OperatorCase("Einsum implicit", tokens(batch_einsum), groups=1),
    OperatorCase("multi-query attention", tokens(multi_query), groups=2),
]
