"""Operators of the domain ai.onnx.ml."""

from __future__ import annotations

import numpy as np
import onnx

from onnxnas.testing.builder import Builder
from onnxnas.testing.operators import OperatorCase
from tests.ops.cases_indexing import total
from tests.ops.networks import tokens

ML = "ai.onnx.ml"


def scaler(numbers: int) -> OperatorCase:
    """In front of two linear layers, whose channels stay elastic."""

    def make() -> onnx.ModelProto:
        b = Builder(0)
        rng = np.random.default_rng(1)
        settings = {key: rng.normal(size=numbers).tolist() for key in ("offset", "scale")}
        x = b.add("Scaler", b.input("x", (6,)), domain=ML, **settings)
        return b.finish(b.linear(b.add("Relu", b.linear(x, 8)), 4))

    return OperatorCase(f"Scaler {numbers}", make, groups=1)


def labels(b: Builder, x: str) -> str:
    """The names, which are numbers, of the classes that are most likely."""
    best = b.add("ArgMax", x, axis=2, keepdims=0, shape=(5,))
    best = b.add("Reshape", best, b.weight("flat", np.array([-1])), shape=())
    names = b.weight("classes", np.arange(10, 18, dtype=np.int32))
    return total(b, x, b.add("ArrayFeatureExtractor", names, best, domain=ML, shape=()))


def features(b: Builder, x: str) -> str:
    picked = b.add("ArrayFeatureExtractor", x, b.weight("index", np.array([3, 1])), domain=ML, shape=(5, 2))
    return total(b, x, picked)


CASES = [
    scaler(1),
    scaler(6),
    OperatorCase("ArrayFeatureExtractor of a vector", tokens(labels), groups=0),
    OperatorCase("ArrayFeatureExtractor", tokens(features), groups=0),
]
