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


CASES: list[OperatorCase] = [OperatorCase("multi-query attention", tokens(multi_query), groups=2)]
