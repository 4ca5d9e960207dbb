"""What ONNX Runtime's optimisers write: cores of attention, and operators that are taken apart at loading."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from onnxnas.testing.builder import Builder
from onnxnas.testing.operators import OperatorCase
from tests.ops.networks import Middle, image, tokens

MICROSOFT = {"domain": "com.microsoft"}


def projections(b: Builder, x: str, *widths: int) -> list[str]:
    return [b.linear(x, width, name) for width, name in zip(widths, "qkv", strict=False)]


def multi_head(b: Builder, x: str) -> str:
    """Three heads; a bias of the projections, padding that is the same for all, a bias for each head."""
    operands = projections(b, x, 12, 12, 18)
    bias = b.weight("bias", b.normal(42))
    padding = b.add("Cast", b.input("mask", (5,)), to=TensorProto.INT32)
    added = b.weight("added", b.normal(1, 3, 5, 5))
    return b.add(
        "MultiHeadAttention", *operands, bias, padding, added, shape=(5, 18), num_heads=3, scale=0.4, **MICROSOFT
    )  # fmt: skip


def causal(b: Builder, x: str) -> str:
    operands = projections(b, x, 16, 16, 16)
    return b.add("MultiHeadAttention", *operands, num_heads=4, unidirectional=1, shape=(5, 16), **MICROSOFT)


def group_query(heads: int, shared: int, together: bool = False, **attributes: Any) -> Middle:
    """Heads of 16; `together`: one layer makes queries, keys and values."""

    def middle(b: Builder, x: str) -> str:
        size = 16
        widths = (heads * size, shared * size, shared * size)
        operands = [b.linear(x, sum(widths), "qkv"), "", ""] if together else projections(b, x, *widths)
        cos, sin = (
            b.weight(n, f(np.arange(6 * size // 2).reshape(6, -1) / 7.0))
            for n, f in (("cos", np.cos), ("sin", np.sin))
        )
        ones = b.add(
            "ReduceSum",
            b.input("mask", (5,), TensorProto.INT64),
            b.weight("axis", np.array([1])),
            shape=(),
            keepdims=0,
        )
        last = b.add("Cast", b.add("Sub", ones, b.weight("one", np.array(1))), to=TensorProto.INT32)
        total = b.weight("total", np.array(5, np.int32))
        return b.add(
            "GroupQueryAttention", *operands, "", "", last, total, cos, sin, shape=(5, heads * size), num_heads=heads,
            kv_num_heads=shared, **attributes, **MICROSOFT,
        )  # fmt: skip

    return middle


def turned(b: Builder, x: str) -> str:
    cos, sin = (b.weight(n, f(np.arange(12.0).reshape(6, 2))) for n, f in (("cos", np.cos), ("sin", np.sin)))
    where = b.input("positions", (5,), TensorProto.INT64)
    y = b.add("RotaryEmbedding", b.linear(x, 12, "q"), where, cos, sin, **MICROSOFT)
    y = b.transpose(b.reshape(y, (0, 5, 3, 4), (5, 3, 4)), (0, 2, 1, 3))
    y = b.transpose(b.add("RotaryEmbedding", y, where, cos, sin, interleaved=1, **MICROSOFT), (0, 2, 1, 3))
    return b.reshape(y, (0, 5, 12), (5, 12))


def attention(*sizes: int, **attributes: Any) -> Middle:
    """Attention with packed weights; two heads."""

    def middle(b: Builder, x: str) -> str:
        weight, bias = b.weight("w", b.normal(8, sum(sizes), scale=0.3)), b.weight("b", b.normal(sum(sizes)))
        mask = b.add("Cast", b.input("mask", (5,)), to=TensorProto.INT32)
        return b.add(
            "Attention", x, weight, bias, mask, shape=(5, sizes[2]), num_heads=4, **attributes, **MICROSOFT
        )  # fmt: skip

    return middle


def norm(b: Builder, op: str, *inputs: str, bias: bool = True, **attributes: Any) -> str:
    scale = b.weight("scale", b.rng.uniform(0.5, 1.5, 8))
    return b.add(op, *inputs, scale, *([b.weight("shift", b.normal(8))] if bias else []), **attributes)


def skipping(simplified: bool = False, opset: int = 17) -> Callable[[], onnx.ModelProto]:
    """`skip` without the outputs that only training asks for."""

    def make() -> onnx.ModelProto:
        model = tokens(skip(simplified), opset=opset)()
        for node in model.graph.node:
            if node.op_type.startswith("Skip"):
                node.output[1] = node.output[2] = ""
        return model

    return make


def skip(simplified: bool = False) -> Middle:
    """Two residual blocks with the normalisation behind the sum, which the second one reads too."""

    def middle(b: Builder, x: str) -> str:
        op = f"Skip{'Simplified' if simplified else ''}LayerNormalization"
        for step in range(2):
            branch = b.linear(b.add("Relu", b.linear(x, 16, "up")), 8, "down")
            with b.within(f"n{step}"):
                y = norm(b, op, branch, x, bias=not simplified, outputs=4, **MICROSOFT)
            x = b.add("Add", y, y.replace("output_0", "output_3"))
            b.shape[x] = (5, 8)
        return x

    return middle


def biased_skip(b: Builder, x: str) -> str:
    scale, shift, bias = (b.weight(n, b.normal(8)) for n in ("scale", "shift", "bias"))
    branch = b.linear(b.add("Relu", b.linear(x, 16, "up")), 8, "down")
    return b.add("SkipLayerNormalization", branch, x, scale, shift, bias, epsilon=1e-3, **MICROSOFT)


def embedded(positions: bool) -> Middle:
    """A table of words, of positions and of segments in place of what came."""

    def middle(b: Builder, x: str) -> str:
        ids, segments = (b.input(name, (5,), TensorProto.INT32) for name in ("ids", "segment_ids"))
        tables = [
            b.weight(n, b.normal(rows, 8)) for n, rows in (("word", 9), ("position", 7), ("segment", 3))
        ]
        scale, shift = (b.weight(n, b.normal(8)) for n in ("scale", "shift"))
        extra = ["", b.input("positions", (5,), TensorProto.INT32)] if positions else []
        inputs = [ids, segments, *tables, scale, shift, *extra]
        y = b.add("EmbedLayerNormalization", *inputs, shape=(5, 8), outputs=2, **MICROSOFT)
        return b.add("Add", x, y)

    return middle


def fused_conv(activation: str, *settings: float, residual: bool = False) -> Middle:
    def middle(b: Builder, x: str) -> str:
        w, bias = b.weight("w", b.normal(8, 8, 3, 3, scale=0.1)), b.weight("b", b.normal(8))
        attributes = {"activation_params": list(settings)} if settings else {}
        return b.add(
            "FusedConv", x, w, bias, *([x] if residual else []), pads=[1] * 4, kernel_shape=[3, 3],
            activation=activation, **attributes, **MICROSOFT,
        )  # fmt: skip

    return middle


def fused_gemm(b: Builder, x: str) -> str:
    x = b.add("Flatten", b.add("GlobalAveragePool", x, shape=(8, 1, 1)), shape=(8,), axis=1)
    w, bias = b.weight("w", b.normal(8, 8)), b.weight("b", b.normal(8))
    x = b.add("FusedGemm", x, w, bias, transB=1, activation="LeakyRelu", activation_alpha=0.2, **MICROSOFT)
    return b.reshape(x, (0, 8, 1, 1), (8, 1, 1))


def fused_matmul(b: Builder, x: str) -> str:
    """A weight that lies on its side; products of queries with keys and of weights with values."""
    x = b.add(
        "FusedMatMul", x, b.weight("w", b.normal(12, 8, scale=0.3)), transB=1, shape=(5, 12), **MICROSOFT
    )
    q, k, v = (b.reshape(b.linear(x, 12, n), (0, 5, 3, 4), (5, 3, 4)) for n in "qkv")
    q, k, v = (b.transpose(y, (0, 2, 1, 3)) for y in (q, k, v))
    a = b.add("FusedMatMul", q, k, transB=1, alpha=0.5, shape=(3, 5, 5), **MICROSOFT)
    y = b.add("FusedMatMul", b.add("Softmax", a, axis=-1), v, shape=(3, 5, 4), **MICROSOFT)
    return b.reshape(b.transpose(y, (0, 2, 1, 3)), (0, 5, 12), (5, 12))


def batch_inside(b: Builder, x: str) -> str:
    """The batch of heads between the two axes of the product."""
    q, k = (b.reshape(b.linear(x, 12, n), (0, 5, 3, 4), (5, 3, 4)) for n in "qk")
    y = b.add(
        "FusedMatMul",
        b.transpose(q, (0, 2, 1, 3)),
        b.transpose(k, (0, 2, 1, 3)),
        transA=1,
        shape=(3, 4, 4),
        **MICROSOFT,
    )
    return b.reshape(y, (0, 12, 4), (12, 4))


def runtime_only(op: str, opset: int = 14) -> Callable[[], onnx.ModelProto]:
    """An operator that ONNX Runtime writes into the standard domain, which does not have it."""

    def middle(b: Builder, x: str) -> str:
        return norm(b, op, x, bias=op == "LayerNormalization", axis=-1, epsilon=1e-3, **MICROSOFT)

    def make() -> onnx.ModelProto:
        model = tokens(middle, opset=opset)()
        for node in model.graph.node:
            node.domain = ""
        del model.opset_import[1:]
        return model

    return make


def gated(b: Builder, x: str) -> str:
    gate = b.add("Sigmoid", b.linear(x, 1, "gate"))
    return b.add("GatedAdd", x, b.linear(x, 8, "other"), gate, **MICROSOFT)


def cached(op: str, steps: int, **attributes: Any) -> Callable[[], onnx.ModelProto]:
    """Keys and values of three tokens before; those of all are outputs, so that heads stay."""

    def make() -> onnx.ModelProto:
        b = Builder(0)
        x = b.linear(b.input("x", (steps, 6)), 8)
        operands = projections(b, x, 32, 32, 32)
        past = [b.input(f"past_{name}", (2, 3, 16)) for name in "kv"]
        inputs = [*operands, "", "", "", *past]
        if op == "GroupQueryAttention":
            mask, axis = b.input("mask", (3 + steps,), TensorProto.INT64), b.weight("axis", np.array([1]))
            ones = b.add("ReduceSum", mask, axis, shape=(), keepdims=0)
            last = b.add("Sub", ones, b.weight("one", np.array(1)))
            last = b.add("Cast", last, to=TensorProto.INT32)
            angles = (
                b.weight(n, f(np.arange(72.0).reshape(9, 8) / 7)) for n, f in (("c", np.cos), ("s", np.sin))
            )
            inputs = [*operands, *past, last, b.weight("total", np.array(3 + steps, np.int32)), *angles]
        y = b.add(op, *inputs, shape=(steps, 32), outputs=3, num_heads=2, **attributes, **MICROSOFT)
        presents = [y.replace("output_0", f"output_{i}") for i in (1, 2)]
        for name in presents:
            b.shape[name] = (2, 3 + steps, 16)
        return b.finish(b.linear(y, 4), *presents)

    return make


def attention_cached() -> onnx.ModelProto:
    """Attention whose keys and values, of before and of all, are stacked: 2 x N x heads x tokens x size."""
    b = Builder(0)
    x = b.linear(b.input("x", (5, 6)), 8)
    past = b.input("past", (2, 2, 3, 8))
    first = b.add("Transpose", past, perm=[1, 0, 2, 3, 4])
    inputs = [x, b.weight("w", b.normal(8, 48, scale=0.3)), b.weight("b", b.normal(48)), "", first]
    y = b.add("Attention", *inputs, shape=(5, 16), outputs=2, num_heads=2, unidirectional=1, **MICROSOFT)
    present = b.add("Transpose", y.replace("output_0", "output_1"), perm=[1, 0, 2, 3, 4], shape=(2, 2, 8, 8))
    return b.finish(b.linear(y, 4), present)


CORES: list[OperatorCase] = [
    OperatorCase("MultiHeadAttention", tokens(multi_head), groups=2),
    OperatorCase("MultiHeadAttention causal", tokens(causal), groups=2),
    OperatorCase("GroupQueryAttention", tokens(group_query(4, 2)), groups=2),
    OperatorCase("GroupQueryAttention turned", tokens(group_query(4, 4, do_rotary=1)), groups=2),
    OperatorCase("GroupQueryAttention packed", tokens(group_query(4, 2, True, do_rotary=1)), groups=2),
    OperatorCase("GroupQueryAttention local", tokens(group_query(4, 2, local_window_size=3)), groups=2),
    OperatorCase("MultiHeadAttention cached", cached("MultiHeadAttention", 5, unidirectional=1)),
    OperatorCase("GroupQueryAttention cached", cached("GroupQueryAttention", 1, kv_num_heads=2, do_rotary=1)),
    OperatorCase("RotaryEmbedding microsoft", tokens(turned), groups=2),
]

APART: list[OperatorCase] = [
    OperatorCase("Attention packed", tokens(attention(16, 16, 16)), groups=2),
    OperatorCase(
        "Attention wide", tokens(attention(8, 8, 24, qkv_hidden_sizes=[8, 8, 24], scale=0.7)), groups=2
    ),
    OperatorCase("Attention cached", attention_cached),
    OperatorCase("Attention causal", tokens(attention(16, 16, 16, unidirectional=1), opset=11), groups=2),
    OperatorCase("SkipLayerNormalization", skipping(), groups=3),
    OperatorCase("SkipLayerNormalization 14", skipping(opset=14), groups=3, zeros=False),
    OperatorCase("SkipSimplifiedLayerNormalization", skipping(True), groups=3, zeros=False),
    OperatorCase("SkipSimplifiedLayerNormalization 23", skipping(True, 23), groups=3, zeros=False),
    OperatorCase("SkipLayerNormalization biased", tokens(biased_skip), groups=2),
    OperatorCase("EmbedLayerNormalization", tokens(embedded(False))),
    OperatorCase("EmbedLayerNormalization positions", tokens(embedded(True), opset=18)),
    OperatorCase("FusedConv", image(fused_conv("Relu")), groups=2),
    OperatorCase("FusedConv residual", image(fused_conv("Clip", -0.5, 0.7, residual=True))),
    OperatorCase("FusedConv leaky", image(fused_conv("LeakyRelu", 0.3)), groups=2),
    OperatorCase("FusedGemm", image(fused_gemm), groups=2),
    OperatorCase("FusedMatMul", tokens(fused_matmul), groups=2),
    OperatorCase("FusedMatMul batch", tokens(batch_inside), groups=1),
    OperatorCase("LayerNormalization 14", runtime_only("LayerNormalization"), zeros=False),
    OperatorCase("SimplifiedLayerNormalization", runtime_only("SimplifiedLayerNormalization"), zeros=False),
    OperatorCase(
        "SimplifiedLayerNormalization 18", runtime_only("SimplifiedLayerNormalization", 18), zeros=False
    ),
    OperatorCase("GatedAdd", tokens(gated)),
]
