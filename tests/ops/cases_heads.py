"""Attention as one operator, with what comes with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from onnxnas.testing.builder import Builder
from onnxnas.testing.operators import OperatorCase
from tests.ops.networks import tokens

Mask = Callable[[Builder, str], str]


def no_mask(b: Builder, x: str) -> str:
    return ""


def constant_mask(*shape: int) -> Mask:
    return lambda b, x: b.weight("mask", b.normal(*shape))


def seen(b: Builder, x: str) -> str:
    """True where something may be seen, the same for all heads."""
    return b.weight("seen", b.rng.uniform(size=(5, 5)) < 0.7)


def computed_mask(b: Builder, x: str) -> str:
    """A bias that a layer makes for each head, as relative positions are weighted: N x 4 x 5 x 5."""
    y = b.reshape(b.linear(x, 20, "positions"), (0, 5, 5, 4), (5, 5, 4))
    return b.transpose(y, (0, 3, 1, 2))


def attention(
    heads: int, shared: int, size: int = 4, values: int = 6, mask: Mask = no_mask, **attributes: Any
) -> Callable[[Builder, str], str]:
    """Three linear layers and Attention with operands of rank 3."""

    def middle(b: Builder, x: str) -> str:
        widths = (heads * size, shared * size, shared * values)
        q, k, v = (b.linear(x, width, name) for width, name in zip(widths, "qkv", strict=True))
        inputs = [q, k, v, mask(b, x)]
        return b.add(
            "Attention", *inputs[: 4 if inputs[3] else 3], shape=(5, heads * values), q_num_heads=heads,
            kv_num_heads=shared, **attributes,
        )  # fmt: skip

    return middle


def split_heads(heads: int, shared: int, **attributes: Any) -> Callable[[Builder, str], str]:
    """The same with operands of rank 4, with queries and keys that are normalised and turned."""

    def middle(b: Builder, x: str) -> str:
        size = 4
        cos, sin = (
            b.weight(n, f(np.arange(10).reshape(5, 2))) for n, f in (("cos", np.cos), ("sin", np.sin))
        )
        where = b.input("positions", (5,), TensorProto.INT64)

        def part(name: str, count: int) -> str:
            y = b.reshape(b.linear(x, count * size, name), (0, 5, count, size), (5, count, size))
            return b.transpose(y, (0, 2, 1, 3))

        q, k = (
            b.add("RotaryEmbedding", b.layer_norm(part(name, count)), cos, sin, where)
            for name, count in (("q", heads), ("k", shared))
        )
        y = b.add("Attention", q, k, part("v", shared), shape=(heads, 5, size), **attributes)
        return b.reshape(b.transpose(y, (0, 2, 1, 3)), (0, 5, heads * size), (5, heads * size))

    return middle


def turned(b: Builder, x: str) -> str:
    """Two of four channels of each head are turned; the heads are on one axis with them."""
    cos, sin = (b.weight(n, f(np.arange(5.0)[:, None])) for n, f in (("cos", np.cos), ("sin", np.sin)))
    where = b.input("positions", (5,), TensorProto.INT64)
    return b.add(
        "RotaryEmbedding", b.linear(x, 12, "q"), cos, sin, where, num_heads=3, rotary_embedding_dim=2,
        interleaved=1,
    )  # fmt: skip


def cached() -> onnx.ModelProto:
    """Keys and values of three tokens before; those of all are outputs, so that heads stay."""
    b = Builder(0, opset=23)
    x = b.linear(b.input("x", (5, 6)), 8)
    q, k, v = (b.linear(x, 8, name) for name in "qkv")
    past = [b.input(f"past_{name}", (2, 3, 4)) for name in "kv"]
    counts = {"q_num_heads": 2, "kv_num_heads": 2}
    y = b.add("Attention", q, k, v, "", *past, shape=(5, 8), outputs=3, is_causal=1, **counts)
    presents = [y.replace("output_0", f"output_{i}") for i in (1, 2)]
    for name in presents:
        b.shape[name] = (2, 8, 4)
    return b.finish(b.linear(y, 4), *presents)


def standard(
    name: str, middle: Callable[[Builder, str], str], groups: int = 2, opset: int = 23
) -> OperatorCase:
    return OperatorCase(f"Attention {name}", tokens(middle, opset=opset), groups)


CASES: list[OperatorCase] = [
    standard("", attention(3, 3)),
    standard("causal", attention(4, 4, is_causal=1, scale=0.3)),
    standard("grouped", attention(8, 4, softcap=2.0)),
    standard("one for all", attention(4, 1)),
    standard("bias by head", attention(4, 2, mask=constant_mask(1, 4, 5, 5))),
    standard("bias computed", attention(4, 2, mask=computed_mask)),
    standard("seen", attention(4, 4, mask=seen, is_causal=1)),
    standard("split", split_heads(4, 4)),
    standard("split grouped", split_heads(6, 3, is_causal=1)),
    standard("24", attention(4, 2, is_causal=1), opset=24),
    OperatorCase("Attention cached", cached),
    OperatorCase("RotaryEmbedding", tokens(turned, opset=23), groups=2),
]
