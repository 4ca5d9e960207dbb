"""If and Loop in torch against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, parser
from onnx.numpy_helper import from_array

from onnxnas import analysis, errors, graph, space
from onnxnas.supernet import SuperNetwork
from onnxnas.testing.operators import OperatorCase, check_case, run_onnx, run_torch, worst

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


@pytest.mark.parametrize("sign", [1, -1])
def test_both_branches(sign: int) -> None:
    made = branches()
    loaded = graph.load(made)
    feeds = {"x": sign * np.abs(np.random.default_rng(1).standard_normal((1, 6))).astype(np.float32)}
    network = SuperNetwork(space.build(analysis.analyse(loaded)))
    assert worst(run_torch(network, feeds), run_onnx(made, feeds)) < 1e-5


def test_loops_carry_collect_and_stop() -> None:
    made = rounds()
    feeds = {"x": np.random.default_rng(1).standard_normal((2, 6)).astype(np.float32)}
    network = SuperNetwork(space.build(analysis.analyse(graph.load(made))))
    expected = run_onnx(made, feeds)
    assert expected[1].shape == (3, 2, 4)  # it stops itself, before nine rounds
    assert worst(run_torch(network, feeds), expected) < 1e-5


def test_widths_that_a_body_reads_stay() -> None:
    check_case(OperatorCase("If", branches, groups=0))
    check_case(OperatorCase("Loop", rounds, groups=0))


def test_weights_inside_are_carried_over() -> None:
    """A body's own initializer, and one of the outer graph that only a body reads."""
    made = branches()
    (choice,) = [node for node in made.graph.node if node.op_type == "If"]
    body = next(a.g for a in choice.attribute if a.name == "else_branch")
    body.initializer.append(from_array(np.full(4, 3, np.float32), "inner"))
    last = body.node[-1]
    last.input[1] = "inner"
    feeds = {"x": -np.ones((1, 6), np.float32)}
    network = SuperNetwork(space.build(analysis.analyse(graph.load(made))))
    assert worst(run_torch(network, feeds), run_onnx(made, feeds)) < 1e-5
    assert "inner" not in network.named_weights()


def test_an_unknown_operator_inside_is_named() -> None:
    made = branches()
    (choice,) = [node for node in made.graph.node if node.op_type == "If"]
    body = next(a.g for a in choice.attribute if a.name == "else_branch")
    body.node[0].op_type, body.node[0].name = "Det", "strange"
    body.node[0].input[0] = "square"
    made.graph.initializer.append(from_array(np.eye(4, dtype=np.float32), "square"))
    del body.node[1:]
    body.output[0].CopyFrom(onnx.helper.make_tensor_value_info("n", TensorProto.FLOAT, None))
    with pytest.raises(errors.ModelError, match=r"'strange'.*Det"):
        SuperNetwork(space.build(analysis.analyse(graph.load(made))))
