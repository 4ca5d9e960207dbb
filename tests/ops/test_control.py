"""If and Loop in torch against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx.numpy_helper import from_array

from onnxnas import analysis, errors, graph, space
from onnxnas.supernet import SuperNetwork
from onnxnas.testing.operators import run_onnx, run_torch, worst
from tests.ops.cases_control import branches, rounds


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
