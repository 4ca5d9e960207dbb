"""If and Loop: widths that a body reads stay."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import parser
from onnx.numpy_helper import from_array

from onnxnas.testing.operators import OperatorCase

HEAD = '<ir_version: 9, opset_import: ["" : 17]>\n'


def model(text: str, **weights: tuple[int, ...]) -> onnx.ModelProto:
    """A network in ONNX's text form; `weights` are drawn."""
    made = parser.parse_model(HEAD + text)
    rng = np.random.default_rng(0)
    for name, shape in weights.items():
        made.graph.initializer.append(from_array(rng.standard_normal(shape).astype(np.float32), name))
    onnx.checker.check_model(made)
    return made


def branches() -> onnx.ModelProto:
    """A choice by the data between two ways; both read a channel tensor, one also a weight and a constant."""
    return model(
        """
        net (float[N,6] x) => (float[N,3] y) {
          h = MatMul(x, w0)
          g = Relu(h)
          total = ReduceSum<keepdims = 0>(x)
          zero = Constant<value = float {0}>()
          positive = Greater(total, zero)
          z = If(positive) <
            then_branch = way () => (float[N,4] a) {
              axes = Constant<value = int64[1] {0}>()
              wide = Unsqueeze(g, axes)
              flat = Squeeze(wide, axes)
              a = MatMul(flat, w1)
            },
            else_branch = other () => (float[N,4] b) {
              n = Neg(g)
              s = Shape(n)
              c = Reshape(n, s)
              b = Mul(c, c)
            }
          >
          y = MatMul(z, w2)
        }""",
        w0=(6, 4),
        w1=(4, 4),
        w2=(4, 3),
    )


def rounds() -> onnx.ModelProto:
    """Three rounds that carry a value, collect what they see, and stop early by what they compute."""
    return model(
        """
        net (float[N,6] x) => (float[N,4] y, float[T,N,4] seen) {
          h = MatMul(x, w0)
          most = Constant<value = int64 {9}>()
          yes = Constant<value = bool {1}>()
          y, seen = Loop(most, yes, h) <
            body = step (int64 i, bool going, float[N,4] state) => (bool again, float[N,4] next, float[N,4] row) {
              m = MatMul(state, w1)
              next = Tanh(m)
              last = Constant<value = int64 {2}>()
              again = Less(i, last)
              even = Constant<value = int64 {2}>()
              rest = Mod(i, even)
              odd = Cast<to = 9>(rest)
              row = If(odd) <
                then_branch = a () => (float[N,4] p) { p = Neg(next) },
                else_branch = b () => (float[N,4] q) { q = Add(next, h) }
              >
            }
          >
        }""",
        w0=(6, 4),
        w1=(4, 4),
    )


CASES = [OperatorCase("If", branches, groups=0), OperatorCase("Loop", rounds, groups=0)]
