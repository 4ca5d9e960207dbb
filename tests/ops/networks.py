"""Small networks around one operator each; `cases` has the list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxnas.testing.builder import Builder
from onnxnas.testing.operators import OperatorCase

Middle = Callable[[Builder, str], str]


def image(middle: Middle, *, opset: int = 17, channels: int = 8) -> Callable[[], onnx.ModelProto]:
    """3 x 8 x 8 -> convolution -> `middle` -> convolution -> pooled, 10 features.

    The second convolution's outputs are a width group of their own: `middle` passes channels if there are two.
    """

    def make() -> onnx.ModelProto:
        b = Builder(0, opset=opset)
        x = b.conv(b.input("x", (3, 8, 8)), channels)
        x = middle(b, x)
        return b.finish(b.head(b.conv(x, 6, 1)))

    return make


def tokens(middle: Middle, *, opset: int = 17, width: int = 8) -> Callable[[], onnx.ModelProto]:
    """5 x 6 -> linear -> `middle` -> linear."""

    def make() -> onnx.ModelProto:
        b = Builder(0, opset=opset)
        x = b.linear(b.input("x", (5, 6)), width)
        return b.finish(b.linear(middle(b, x), 4))

    return make


def unary(op: str, opset: int = 17, positive: bool = False, **attributes: Any) -> OperatorCase:
    def middle(b: Builder, x: str) -> str:
        x = b.add("Abs", x) if positive else x
        return b.add(op, b.add("Add", x, b.weight("one", np.float32(1.5))) if positive else x, **attributes)

    return OperatorCase(op, image(middle, opset=opset), groups=2)


def binary(op: str, name: str = "", positive: bool = False) -> OperatorCase:
    """Two branches of the same channels, and a constant with a value for each channel."""

    def middle(b: Builder, x: str) -> str:
        left, right = b.conv(x, 8), b.conv(x, 8, 1)
        if positive:
            left, right = (
                b.add("Add", b.add("Abs", v), b.weight("one", np.float32(1))) for v in (left, right)
            )
        y = b.add(op, left, right)
        return b.add("Relu", b.add(op, y, b.weight("scale", b.rng.uniform(0.5, 1.5, (8, 1, 1)))))

    return OperatorCase(name or op, image(middle), groups=2)


def comparison(op: str, boolean: bool = False) -> OperatorCase:
    def middle(b: Builder, x: str) -> str:
        left, right = b.conv(x, 8), b.conv(x, 8, 1)
        if op == "Equal":
            left, right = b.add("Round", left), b.add("Round", right)
        if boolean:
            zero = b.weight("zero", np.float32(0))
            left, right = b.add("Greater", left, zero), b.add("Less", right, zero)
        y = b.add("Cast", b.add("Not", b.add(op, left, right)), to=TensorProto.FLOAT)
        return b.add("Mul", x, y)

    return OperatorCase(op, image(middle), groups=1)


def where(b: Builder, x: str) -> str:
    condition = b.add("Greater", x, b.weight("zero", np.float32(0)))
    return b.add("Where", condition, b.conv(x, 8), b.conv(x, 8, 1))


def is_nan(b: Builder, x: str) -> str:
    return b.add("Where", b.add("IsNaN", x), b.weight("zero", np.float32(0)), x)


def prelu(b: Builder, x: str) -> str:
    return b.add("PRelu", x, b.weight("slope", b.rng.uniform(0, 0.5, (8, 1, 1))))


def clip(b: Builder, x: str) -> str:
    return b.add("Clip", x, b.weight("low", np.float32(-0.5)), b.weight("high", np.float32(0.7)))


def modulo(b: Builder, x: str) -> str:
    return b.add("Mod", x, b.weight("by", np.float32(0.7)), fmod=1)


def power(b: Builder, x: str) -> str:
    return b.add("Pow", x, b.weight("two", np.float32(2)))


def variadic(op: str) -> OperatorCase:
    return OperatorCase(op, image(lambda b, x: b.add(op, b.conv(x, 8), x, b.conv(x, 8, 1))))


def convolution(name: str, **options: Any) -> OperatorCase:
    return OperatorCase(f"Conv {name}", image(lambda b, x: b.conv(x, options.pop("out", 8), **options)))


def conv_raw(
    op: str, weight: Sequence[int], shape: Sequence[int], bias: int = 0, **attributes: Any
) -> Middle:
    def middle(b: Builder, x: str) -> str:
        inputs = [x, b.weight("w", b.normal(*weight, scale=0.3))]
        if bias:
            inputs.append(b.weight("b", b.normal(bias)))
        return b.add(op, *inputs, shape=shape, **attributes)

    return middle


def conv_1d(b: Builder, x: str) -> str:
    x = b.reshape(x, (0, 0, 64), (8, 64))
    x = b.add("Conv", x, b.weight("w", b.normal(8, 8, 3)), shape=(8, 64), pads=[1, 1], kernel_shape=[3])
    return b.reshape(x, (0, 0, 8, 8), (8, 8, 8))


def channel_gate(b: Builder, x: str) -> str:
    """A gate that convolves over neighbouring channels (efficient channel attention)."""
    y = b.add("GlobalAveragePool", x, shape=(8, 1, 1))
    y = b.transpose(b.reshape(y, (0, 0, 1), (8, 1)), (0, 2, 1))
    y = b.add("Conv", y, b.weight("w", b.normal(1, 1, 3)), shape=(1, 8), pads=[1, 1], kernel_shape=[3])
    y = b.reshape(b.add("Sigmoid", b.transpose(y, (0, 2, 1))), (0, 0, 1, 1), (8, 1, 1))
    return b.add("Mul", x, y)


def gemm(trans: int, **attributes: float) -> OperatorCase:
    def make() -> onnx.ModelProto:
        b = Builder(0)
        x = b.linear(b.input("x", (6,)), 8)
        weight = b.weight("w", b.normal(*((5, 8) if trans else (8, 5))))
        x = b.add("Gemm", x, weight, b.weight("c", b.normal(5)), shape=(5,), transB=trans, **attributes)
        return b.finish(b.linear(b.add("Relu", x), 4))

    return OperatorCase(f"Gemm transB={trans}", make, groups=2)


def left_constant(b: Builder, x: str) -> str:
    """Mixes tokens by a constant on the left."""
    return b.add("MatMul", b.weight("mix", b.normal(5, 5)), x, shape=b.shape[x])


def attention(b: Builder, x: str, heads: int = 2, shared: int = 2) -> str:
    """q k' v with `heads` query heads and `shared` key and value heads (repeated: grouped queries)."""
    size = 4

    def split(n: int, name: str) -> str:
        return b.transpose(
            b.reshape(b.linear(x, n * size, name), (0, 5, n, size), (5, n, size)), (0, 2, 1, 3)
        )

    def repeated(v: str) -> str:
        if shared == heads:
            return v
        v = b.add("Unsqueeze", v, b.weight("axis", np.array([2])), shape=(shared, 1, 5, size))
        times = b.weight("times", np.array([1, shared, heads // shared, 5, size]))
        v = b.add("Expand", v, times, shape=(shared, heads // shared, 5, size))
        return b.reshape(v, (0, heads, 5, size), (heads, 5, size))

    q, k, v = split(heads, "q"), repeated(split(shared, "k")), repeated(split(shared, "v"))
    a = b.add("MatMul", q, b.transpose(k, (0, 1, 3, 2)), shape=(heads, 5, 5))
    y = b.add("MatMul", b.add("Softmax", a, axis=-1), v, shape=(heads, 5, size))
    return b.reshape(b.transpose(y, (0, 2, 1, 3)), (0, 5, heads * size), (5, heads * size))


def instance_norm(b: Builder, x: str) -> str:
    return b.add("InstanceNormalization", x, b.weight("s", b.normal(8)), b.weight("b", b.normal(8)))


def group_norm(groups: int) -> Middle:
    def middle(b: Builder, x: str) -> str:
        parameters = (b.weight("s", b.rng.uniform(0.5, 1.5, 8)), b.weight("b", b.normal(8)))
        return b.add("GroupNormalization", x, *parameters, num_groups=groups)

    return middle


def rms_norm(b: Builder, x: str) -> str:
    return b.add("RMSNormalization", x, b.weight("s", b.normal(8)), axis=-1)


def reduce(op: str) -> OperatorCase:
    """Over the tokens, the channels pass."""

    def middle(b: Builder, x: str) -> str:
        x = b.add("Add", b.add("Abs", x), b.weight("one", np.float32(0.5)))
        y = b.add(op, x, axes=[1], shape=(1, 8), keepdims=1) if op != "ReduceSum" else _sum(b, x)
        return b.add("Mul", b.add("Tanh", y), x, shape=(5, 8))

    return OperatorCase(op, tokens(middle, opset=13))


def _sum(b: Builder, x: str) -> str:
    return b.add("ReduceSum", x, b.weight("axes", np.array([1])), shape=(1, 8), keepdims=1)


def reduced_channels(b: Builder, x: str) -> str:
    """The mean over the channels is over those that are kept."""
    return b.add("Sub", x, b.add("ReduceMean", x, axes=[-1], shape=(5, 1), keepdims=1))


def arg(op: str) -> OperatorCase:
    def middle(b: Builder, x: str) -> str:
        y = b.add("Cast", b.add(op, x, axis=1, shape=(1, 8), keepdims=1), to=TensorProto.FLOAT)
        return b.add("Add", x, y)

    return OperatorCase(op, tokens(middle))


def shuffle(b: Builder, x: str) -> str:
    x = b.transpose(b.reshape(x, (0, 2, 4, 8, 8), (2, 4, 8, 8)), (0, 2, 1, 3, 4))
    return b.reshape(x, (0, 8, 8, 8), (8, 8, 8))


def squeeze(b: Builder, x: str) -> str:
    y = b.add("Unsqueeze", x, b.weight("a", np.array([1, 3])), shape=(1, 8, 1, 8, 8))
    return b.add("Squeeze", y, b.weight("a", np.array([1, 3])), shape=(8, 8, 8))


def tile(b: Builder, x: str) -> str:
    return b.conv(b.add("Tile", x, b.weight("r", np.array([1, 2, 1, 1])), shape=(16, 8, 8)), 8)


def concat(b: Builder, x: str) -> str:
    return b.add("Concat", b.conv(x, 4), x, b.conv(x, 3, 1), axis=1, shape=(15, 8, 8))


def concat_tokens(b: Builder, x: str) -> str:
    return b.add("Concat", b.linear(x, 8, "other"), x, axis=1, shape=(10, 8))


def class_token(length: int) -> OperatorCase:
    """A learned token in front of the others, repeated for each sample: (batch, 1, `length`) is its target."""

    def middle(b: Builder, x: str) -> str:
        batch = b.add("Gather", b.add("Shape", x, shape=()), b.weight("i", np.array([0])), shape=())
        parts = (batch, b.weight("one", np.array([1])), b.weight("length", np.array([length])))
        target = b.add("Concat", *parts, axis=0, shape=())
        token = b.add("Expand", b.weight("token", b.normal(1, 1, 8)), target, shape=(1, 8))
        return b.add("Concat", token, x, axis=1, shape=(6, 8))

    return OperatorCase(f"Expand class token {length}", tokens(middle))


def split(opset: int) -> OperatorCase:
    def middle(b: Builder, x: str) -> str:
        if opset >= 18:
            y = b.add("Split", x, axis=1, outputs=2, num_outputs=2, shape=(4, 8, 8))
        elif opset >= 13:
            y = b.add("Split", x, b.weight("s", np.array([4, 4])), axis=1, outputs=2, shape=(4, 8, 8))
        else:
            y = b.add("Split", x, axis=1, outputs=2, split=[4, 4], shape=(4, 8, 8))
        other = y.replace("_output_0", "_output_1")
        return b.add("Concat", b.conv(y, 4), other, axis=1, shape=(8, 8, 8))

    return OperatorCase(f"Split {opset}", image(middle, opset=opset), groups=3)


def gather(b: Builder, x: str) -> str:
    index = b.weight("i", np.array([7, 1, 3, -8, 5, 5]))
    return b.add("Gather", x, index, axis=1, shape=(6, 8, 8))


def slice_(b: Builder, x: str) -> str:
    ends = [b.weight("v", np.array(v)) for v in ([1, 0], [2**31 - 1, 6], [1, 3])]
    return b.add("Slice", x, *ends, shape=(7, 8, 6))


def pad(b: Builder, x: str) -> str:
    pads = np.array([0, 2, 1, 0, 0, 3, 0, 1])
    y = b.add("Pad", x, b.weight("p", pads), shape=(13, 9, 9))
    return b.add("Relu", b.add("Add", b.conv(y, 13), y))


def pad_mode(mode: str) -> Middle:
    return lambda b, x: b.add(
        "Pad", x, b.weight("p", np.array([0, 0, 1, 2, 0, 0, 1, 0])), shape=(8, 10, 10), mode=mode
    )


def pool(op: str, shape: Sequence[int], opset: int = 17, **attributes: Any) -> OperatorCase:
    return OperatorCase(
        op, image(lambda b, x: b.add(op, x, shape=shape, **attributes), opset=opset), groups=2
    )


def resize(mode: str, place: str, sizes: bool, opset: int = 17, **attributes: Any) -> OperatorCase:
    def middle(b: Builder, x: str) -> str:
        empty = b.weight("roi", np.zeros(0, np.float32))
        settings = {"mode": mode, "coordinate_transformation_mode": place, **attributes}
        if sizes:
            target = b.weight("sizes", np.array([16, 12]))
            return b.add("Resize", x, empty, empty, target, shape=(8, 16, 12), axes=[2, 3], **settings)
        scales = b.weight("scales", np.array([1, 1, 2, 1.5], np.float32))
        return b.add("Resize", x, empty, scales, shape=(8, 16, 12), **settings)

    return OperatorCase(f"Resize {mode} {place}", image(middle, opset=18 if sizes else opset))


def upsample(b: Builder, x: str) -> str:
    return b.add(
        "Upsample", x, b.weight("s", np.array([1, 1, 2, 2], np.float32)), shape=(8, 16, 16), mode="linear"
    )


def depth(op: str, shape: Sequence[int], **attributes: Any) -> OperatorCase:
    return OperatorCase(
        f"{op} {attributes}", image(lambda b, x: b.add(op, x, shape=shape, blocksize=2, **attributes))
    )


def plain(op: str, build: Callable[[Builder, str], str], groups: int = 0) -> OperatorCase:
    """An operator that passes no channels: torch against ONNX Runtime, and nothing breaks around it."""
    return OperatorCase(op, tokens(build), groups=groups)


def constant_of_shape(b: Builder, x: str) -> str:
    value = helper.make_tensor("v", TensorProto.FLOAT, [1], [0.5])
    shape = b.add("Shape", x, shape=())
    return b.add("Add", x, b.add("ConstantOfShape", shape, value=value, shape=(5, 8)))


def one_hot(b: Builder, x: str) -> str:
    index = b.add("ArgMax", x, axis=2, keepdims=0, shape=(5,))
    values = b.weight("v", np.array([-1, 2], np.float32))
    return b.add("OneHot", index, b.weight("d", np.array(8)), values, shape=(5, 8))


def gather_elements(b: Builder, x: str) -> str:
    index = b.add("ArgMax", x, axis=2, keepdims=1, shape=(5, 1))
    return b.add("Add", x, b.add("GatherElements", x, index, axis=2, shape=(5, 1)))


def gather_nd(b: Builder, x: str) -> str:
    index = b.add("Cast", b.add("Greater", x, b.weight("z", np.float32(0))), to=TensorProto.INT64)
    pairs = b.add("Slice", index, *[b.weight("s", np.array(v)) for v in ([0], [2], [2])], shape=(5, 2))
    picked = b.add("GatherND", x, pairs, batch_dims=1, shape=(5,))
    return b.add("Add", x, b.add("Unsqueeze", picked, b.weight("a", np.array([2])), shape=(5, 1)))


def scatter_nd(b: Builder, x: str) -> str:
    updates = b.add("Slice", x, *[b.weight("s", np.array(v)) for v in ([0], [1], [0])], shape=(5, 8))
    return b.add("ScatterND", x, b.weight("i", np.array([[0]])), b.add("Neg", updates))


def top_k(b: Builder, x: str) -> str:
    return b.add("TopK", x, b.weight("k", np.array([8])), axis=-1, outputs=2)


def ranges(b: Builder, x: str) -> str:
    size = b.add("Gather", b.add("Shape", x, shape=()), b.weight("i", np.array(0)), shape=())
    numbers = b.add("Range", b.weight("s", np.array(0)), size, b.weight("d", np.array(1)), shape=())
    numbers = b.add("Cast", numbers, to=TensorProto.FLOAT, shape=())
    return b.add("Add", x, b.add("Unsqueeze", numbers, b.weight("a", np.array([1, 2])), shape=(1, 1)))


def size(b: Builder, x: str) -> str:
    return b.add("Div", x, b.add("Cast", b.add("Size", x, shape=()), to=TensorProto.FLOAT, shape=()))


def dropout(b: Builder, x: str) -> str:
    return b.add("Dropout", x, b.weight("r", np.float32(0.5)), b.weight("t", np.bool_(False)))
