"""Test networks: small (8 to 16 channels, 8 x 8 images), seeded, with a dynamic batch, pure `onnx.helper`.

Each function gives a new `onnx.ModelProto` with float input `x` (N x 3 x 8 x 8 unless it says otherwise)
and output `y` (N x 10). `NETWORKS` has them all by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from onnx import ModelProto, TensorProto

from onnxnas.testing.builder import Builder

SIZE = 8


def vgg(seed: int = 0, *, bn: bool = False, channels: Sequence[int] = (8, 16)) -> ModelProto:
    """Plain convolutions with ReLU, max pooling, flatten to C*H*W features, two Gemm."""
    b = Builder(seed)
    x = b.input("x", (3, SIZE, SIZE))
    for i, out in enumerate(channels):
        with b.within(f"features.{i}"):
            x = b.conv_bn(x, out) if bn else b.add("Relu", b.conv(x, out))
            x = b.pool(x)
    size = int(np.prod(b.shape[x]))
    x = b.add("Flatten", x, shape=(size,), axis=1)
    return b.finish(b.linear(b.add("Relu", b.linear(x, 24, "fc1")), 10, "fc2"))


def resnet(
    seed: int = 0,
    *,
    blocks: Sequence[int] = (2, 2),
    channels: Sequence[int] = (8, 16),
    shortcut: str = "conv",
    group: int = 1,
) -> ModelProto:
    """Basic residual blocks with BatchNormalization; the first block of every later stage has stride 2.

    `shortcut` where the shape changes: 'conv' (1 x 1 convolution and BN) or 'pad' (option A: every second
    pixel, channels padded with zeros on both sides). `group` > 1 makes the convolutions grouped.
    """
    b = Builder(seed)
    x = b.input("x", (3, SIZE, SIZE))
    x = b.conv_bn(x, channels[0], number="1")
    for stage, (count, out) in enumerate(zip(blocks, channels, strict=True), 1):
        for index in range(count):
            with b.within(f"layer{stage}.{index}"):
                stride = 2 if stage > 1 and index == 0 else 1
                y = b.conv_bn(x, out, number="1", stride=stride, group=group)
                y = b.conv_bn(y, out, number="2", relu=False, group=group)
                if b.shape[x] != b.shape[y]:
                    x = _shortcut(b, x, out, stride, shortcut)
                x = b.add("Relu", b.add("Add", y, x))
    return b.finish(b.head(x))


def _shortcut(b: Builder, x: str, out: int, stride: int, kind: str) -> str:
    with b.within("shortcut"):
        if kind == "conv":
            return b.conv_bn(x, out, 1, stride=stride, relu=False)
        channels, height, width = b.shape[x]
        ends = [np.array(v, np.int64) for v in ([0, 0], [2**31 - 1] * 2, [2, 3], [stride, stride])]
        shape = (channels, -(-height // stride), -(-width // stride))
        x = b.add("Slice", x, *(b.weight("slice", end) for end in ends), shape=shape)
        extra = out - channels
        pads = np.array([0, extra // 2, 0, 0, 0, extra - extra // 2, 0, 0], np.int64)
        return b.add("Pad", x, b.weight("pads", pads), shape=(out, *shape[1:]))


def resnet_a(seed: int = 0) -> ModelProto:
    """ResNet with option-A shortcuts (He et al. 2015, CIFAR)."""
    return resnet(seed, shortcut="pad")


def resnext(seed: int = 0) -> ModelProto:
    """Residual blocks of grouped convolutions, 4 groups."""
    return resnet(seed, channels=(16, 16), group=4)


def mbconv(seed: int = 0, *, blocks: int = 3) -> ModelProto:
    """Inverted residuals: expand, depthwise, squeeze-and-excite, project (EfficientNet)."""
    b = Builder(seed)
    x = b.input("x", (3, SIZE, SIZE))
    with b.within("stem"):
        x = b.silu(b.conv_bn(x, 8, relu=False))
    for index in range(blocks):
        with b.within(f"blocks.{index}"):
            stride = 2 if index == 0 else 1
            wide = b.shape[x][0] * 2
            y = b.silu(b.conv_bn(x, wide, 1, number="_expand", relu=False))
            y = b.silu(b.conv_bn(y, wide, 3, number="_dw", relu=False, stride=stride, group=wide))
            y = squeeze_excite(b, y, wide // 4)
            y = b.conv_bn(y, 8 if index == 0 else b.shape[x][0], 1, number="_project", relu=False)
            x = b.add("Add", y, x) if b.shape[x] == b.shape[y] else y
    return b.finish(b.head(x))


def squeeze_excite(b: Builder, x: str, squeezed: int) -> str:
    """Global pooling, two 1 x 1 convolutions, a gate on every channel."""
    channels = b.shape[x][0]
    with b.within("se"):
        s = b.add("GlobalAveragePool", x, shape=(channels, 1, 1))
        s = b.add("Relu", b.conv(s, squeezed, 1, name="reduce"))
        return b.add("Mul", x, b.add("Sigmoid", b.conv(s, channels, 1, name="expand")))


def densenet(seed: int = 0, *, layers: int = 3, growth: int = 4) -> ModelProto:
    """BN-ReLU-conv layers that read all before them through Concat; a transition with average pooling."""
    b = Builder(seed)
    x = b.conv(b.input("x", (3, SIZE, SIZE)), 8, bias=False)
    for block in range(2):
        for layer in range(layers):
            with b.within(f"denseblock{block + 1}.denselayer{layer + 1}"):
                y = b.conv(b.add("Relu", b.batch_norm(x)), growth, bias=False)
                x = concat(b, x, y)
        if block == 0:
            with b.within("transition1"):
                x = b.conv(b.add("Relu", b.batch_norm(x)), b.shape[x][0] // 2, 1, bias=False)
                x = b.pool(x, op="AveragePool")
    return b.finish(b.head(b.add("Relu", b.batch_norm(x, "norm"))))


def concat(b: Builder, *inputs: str) -> str:
    """Concat of the channels."""
    channels = sum(b.shape[name][0] for name in inputs)
    return b.add("Concat", *inputs, shape=(channels, *b.shape[inputs[0]][1:]), axis=1)


def shufflenet(seed: int = 0) -> ModelProto:
    """Split in halves, a depthwise branch, concat, channel shuffle by Reshape-Transpose-Reshape."""
    b = Builder(seed)
    x = b.conv_bn(b.input("x", (3, SIZE, SIZE)), 16)
    for index in range(2):
        with b.within(f"stage.{index}"):
            half = b.add(
                "Split", x, b.weight("split", np.array([8, 8])), shape=(8, SIZE, SIZE), outputs=2, axis=1
            )
            other = half.removesuffix("_0") + "_1"
            y = b.conv_bn(other, 8, 1, number="1")
            y = b.conv_bn(y, 8, 3, number="2", relu=False, group=8)
            y = b.conv_bn(y, 8, 1, number="3")
            x = concat(b, half, y)
            x = b.reshape(x, (0, 2, 8, SIZE, SIZE), (2, 8, SIZE, SIZE))
            x = b.transpose(x, (0, 2, 1, 3, 4))
            x = b.reshape(x, (0, 16, SIZE, SIZE), (16, SIZE, SIZE))
    return b.finish(b.head(x))


def unet(seed: int = 0) -> ModelProto:
    """Down, up by Resize, and a skip through Concat; dense output N x 2 x 8 x 8."""
    b = Builder(seed)
    x = b.conv_bn(b.input("x", (3, SIZE, SIZE)), 8)
    with b.within("down"):
        y = b.conv_bn(b.pool(x), 16)
    with b.within("up"):
        scales = b.weight("scales", np.array([1, 1, 2, 2], np.float32))
        y = b.add("Resize", y, "", scales, shape=(16, SIZE, SIZE), mode="nearest")
        y = b.conv_bn(concat(b, y, x), 8)
    return b.finish(b.conv(y, 2, 1, name="classifier"))


def vit(seed: int = 0, *, depth: int = 2, width: int = 16, heads: int = 4) -> ModelProto:
    """Patches of 2 x 2, position embedding, pre-norm encoder with one fused q-k-v product, mean pooling."""
    b = Builder(seed)
    with b.within("patch_embed"):
        x = b.input("x", (3, SIZE, SIZE))
        weight = b.weight("proj.weight", b.normal(width, 3, 2, 2, scale=0.3))
        grid = SIZE // 2
        x = b.add("Conv", x, weight, shape=(width, grid, grid), kernel_shape=[2, 2], strides=[2, 2])
    tokens = grid * grid
    x = b.transpose(b.reshape(x, (0, width, tokens), (width, tokens)), (0, 2, 1))
    x = b.add("Add", x, b.weight("pos_embed", b.normal(1, tokens, width, scale=0.2)))
    for index in range(depth):
        with b.within(f"blocks.{index}"):
            y = b.layer_norm(x, "norm1")
            with b.within("attn"):
                y = _fused_attention(b, y, heads)
            x = b.add("Add", x, y)
            y = b.layer_norm(x, "norm2")
            with b.within("mlp"):
                y = b.linear(b.gelu(b.linear(y, 2 * width, "fc1")), width, "fc2")
            x = b.add("Add", x, y)
    x = b.layer_norm(x)
    return b.finish(b.linear(b.add("ReduceMean", x, shape=(width,), axes=[1], keepdims=0), 10, "head"))


def _fused_attention(b: Builder, x: str, heads: int) -> str:
    tokens, width = b.shape[x]
    size = width // heads
    qkv = b.reshape(b.linear(x, 3 * width, "qkv"), (0, tokens, 3, heads, size), (tokens, 3, heads, size))
    parts = []
    for index in range(3):
        part = b.add("Gather", qkv, b.weight("index", np.array(index)), shape=(tokens, heads, size), axis=2)
        parts.append(b.transpose(part, (0, 2, 1, 3)))
    return _attend(b, *parts, mask=None)


def _attend(b: Builder, q: str, k: str, v: str, *, mask: str | None) -> str:
    """softmax(q k' / sqrt d + mask) v and the output projection; q, k, v are (heads, T, d)."""
    heads, tokens, size = b.shape[q]
    scores = b.add("MatMul", q, b.transpose(k, (0, 1, 3, 2)), shape=(heads, tokens, tokens))
    scores = b.add("Mul", scores, b.weight("scale", np.float32(size**-0.5)))
    if mask is not None:
        scores = b.add("Add", scores, mask)
    y = b.add("MatMul", b.add("Softmax", scores, axis=-1), v, shape=(heads, tokens, size))
    y = b.reshape(b.transpose(y, (0, 2, 1, 3)), (0, tokens, heads * size), (tokens, heads * size))
    return b.linear(y, heads * size, "proj")


def bert(seed: int = 0, *, depth: int = 2, width: int = 16, heads: int = 4, tokens: int = 6) -> ModelProto:
    """Post-norm encoder; int64 inputs `input_ids` (below 30) and `attention_mask`, both N x tokens."""
    b = Builder(seed)
    ids = b.input("input_ids", (tokens,), TensorProto.INT64)
    mask = b.input("attention_mask", (tokens,), TensorProto.INT64)
    with b.within("embeddings"):
        words = b.weight("word_embeddings.weight", b.normal(30, width, scale=0.5))
        x = b.add("Gather", words, ids, shape=(tokens, width), axis=0)
        x = b.add("Add", x, b.weight("position_embeddings.weight", b.normal(1, tokens, width, scale=0.2)))
        x = b.layer_norm(x, "LayerNorm")
    mask = b.add("Unsqueeze", mask, b.weight("axes", np.array([1, 2])), shape=(1, 1, tokens))
    mask = b.add(
        "Sub", b.weight("one", np.float32(1)), b.add("Cast", mask, to=TensorProto.FLOAT), shape=(1, 1, tokens)
    )
    mask = b.add("Mul", mask, b.weight("low", np.float32(-1e4)))
    for index in range(depth):
        with b.within(f"encoder.layer.{index}"):
            with b.within("attention"):
                parts = []
                for name in ("query", "key", "value"):
                    part = b.linear(x, width, name)
                    part = b.reshape(
                        part, (0, tokens, heads, width // heads), (tokens, heads, width // heads)
                    )
                    parts.append(b.transpose(part, (0, 2, 1, 3)))
                y = _attend(b, *parts, mask=mask)
            x = b.layer_norm(b.add("Add", y, x), "norm1")
            y = b.linear(b.gelu(b.linear(x, 2 * width, "intermediate")), width, "output")
            x = b.layer_norm(b.add("Add", y, x), "norm2")
    first = b.add("Gather", x, b.weight("first", np.array(0)), shape=(width,), axis=1)
    return b.finish(b.linear(b.add("Tanh", b.linear(first, width, "pooler")), 10, "classifier"))


def random_cnn(rng: np.random.Generator, *, blocks: int = 4) -> ModelProto:
    """A chain of random blocks: convolution, residual, concat, depthwise with squeeze-excite, pooling."""
    b = Builder(int(rng.integers(1 << 31)))
    x = b.conv_bn(b.input("x", (3, SIZE, SIZE)), int(rng.choice((4, 8))))
    for index in range(blocks):
        with b.within(f"blocks.{index}"):
            x = _random_block(b, x, rng)
    return b.finish(b.head(x))


def _random_block(b: Builder, x: str, rng: np.random.Generator) -> str:
    channels, height, _ = b.shape[x]
    kernel, bn = int(rng.choice((1, 3, 5))), bool(rng.integers(2))
    kind = str(rng.choice(("plain", "residual", "concat", "depthwise", "grouped", "pool")))
    if kind == "pool" and height >= 4:
        return b.pool(x, op=str(rng.choice(("MaxPool", "AveragePool"))))
    if kind == "residual":
        y = b.conv_bn(x, int(rng.choice((4, 8))), kernel, number="1")
        y = b.conv_bn(y, channels, 3, number="2", relu=False) if bn else b.conv(y, channels, 3)
        return b.add("Relu", b.add("Add", *((x, y) if rng.integers(2) else (y, x))))
    if kind == "concat":
        left, right = b.conv_bn(x, 4, 1, number="1"), b.conv_bn(x, 4, kernel, number="2")
        return concat(b, left, right, *([x] if bn and channels <= 8 else []))
    if kind == "depthwise":
        y = b.conv_bn(x, channels, 3, number="_dw", group=channels)
        return b.conv_bn(squeeze_excite(b, y, 2) if bn else y, int(rng.choice((4, 8))), 1, number="_pw")
    if kind == "grouped":
        return b.add("Relu", b.conv(x, channels, 3, group=2))
    out = int(rng.choice((4, 8, 12)))
    return b.conv_bn(x, out, kernel) if bn else b.add("Relu", b.conv(x, out, kernel))


NETWORKS: Mapping[str, Callable[[int], ModelProto]] = {
    "vgg": vgg,
    "resnet": resnet,
    "resnet_a": resnet_a,
    "resnext": resnext,
    "mbconv": mbconv,
    "densenet": densenet,
    "shufflenet": shufflenet,
    "unet": unet,
    "vit": vit,
    "bert": bert,
}
