"""What is trained, what weight decay leaves alone."""

from __future__ import annotations

import numpy as np

from onnxnas.supernet.parameters import trainable, undecayed
from onnxnas.types import Node


def node(kind: str, *inputs: str) -> Node:
    return Node("/".join((kind, *inputs)), kind, "", 17, inputs, (kind + ".out",), {})


def f(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def test_weights_are_told_from_constants() -> None:
    values = {
        "pixel.mean": f(3, 1, 1),
        "conv.w": f(4, 3, 3, 3),
        "conv.b": f(4),
        "bn.scale": f(4),
        "bn.bias": f(4),
        "bn.mean": f(4),
        "bn.var": f(4),
        "clip.max": np.float32(6),
        "resize.scales": f(4),
        "mask": np.full((8, 8), -3e38, np.float32),
        "exponent": np.float32(2),
        "position": f(1, 8, 4),
        "index": np.arange(4),
    }
    nodes = [
        node("Sub", "x", "pixel.mean"),
        node("Conv", "a", "conv.w", "conv.b"),
        node("BatchNormalization", "b", "bn.scale", "bn.bias", "bn.mean", "bn.var"),
        node("Clip", "c", "", "clip.max"),
        node("Resize", "d", "", "resize.scales"),
        node("Add", "e", "mask"),
        node("Pow", "f", "exponent"),
        node("Add", "g", "position"),
        node("Gather", "h", "index"),
    ]
    assert trainable(nodes, values, ["x"]) == {"conv.w", "conv.b", "bn.scale", "bn.bias", "position"}


def test_a_constant_with_a_second_use_as_statistics_is_left_alone() -> None:
    values = {"zeros": f(4), "ones": f(4)}
    nodes = [node("Add", "a", "zeros"), node("BatchNormalization", "b", "ones", "zeros", "zeros", "ones")]
    assert trainable(nodes, values, ["x"]) == set()


def test_no_decay_for_biases_and_norms() -> None:
    values = {"w": f(4, 3), "b": f(4), "bias": f(1, 4, 1, 1), "ln": f(3, 4)}
    nodes = [node("Gemm", "x", "w", "b"), node("Add", "y", "bias"), node("LayerNormalization", "z", "ln")]
    assert undecayed(nodes, values) == {"b", "bias", "ln"}
