"""A fixed batch made free: what is declared, and where a Reshape says it."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import rewriters


def network(*targets: list[int], out: tuple[int, ...], batch: int = 1, constant: bool = False) -> ModelProto:
    """x [batch, 4, 6] reshaped to each of `targets` in turn; by Constant nodes, or initializers."""
    nodes, weights, last = [], [], "x"
    for index, target in enumerate(targets):
        value = numpy_helper.from_array(np.array(target, np.int64), f"t{index}")
        if constant:
            nodes.append(helper.make_node("Constant", [], [f"t{index}"], value=value))
        else:
            weights.append(value)
        name = "y" if index == len(targets) - 1 else f"h{index}"
        nodes.append(helper.make_node("Reshape", [last, f"t{index}"], [name]))
        last = name
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 4, 6])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, out)
    body = helper.make_graph(nodes, "g", [x], [y], weights)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(model: ModelProto, x: np.ndarray) -> np.ndarray:
    return np.asarray(onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0])


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize(
    "targets",
    [
        [[1, 24]],
        [[1, 2, -1, 6], [1, 24]],  # -1 stands for something else
        [[0, 24]],  # took any batch already
        [[2, 2, 6], [1, 24]],  # two rows a sample
    ],
)
def test_reshapes_follow_the_batch(targets: list[list[int]], constant: bool) -> None:
    model = network(*targets, out=(1, 24), constant=constant)
    before = model.SerializeToString()
    made = rewriters.free_batch(model)
    assert isinstance(made, ModelProto)
    onnx.checker.check_model(made, full_check=True)
    x = np.arange(72, dtype=np.float32).reshape(3, 4, 6)
    assert np.array_equal(run(made, x), np.concatenate([run(model, x[i : i + 1]) for i in range(3)]))
    assert model.SerializeToString() == before
    dims = [value.type.tensor_type.shape.dim[0] for value in (made.graph.input[0], made.graph.output[0])]
    assert [dim.dim_param for dim in dims] == ["batch", "batch"]


def test_a_batch_of_more_than_one() -> None:
    model = network([2, 24], out=(2, 24), batch=2)
    made = rewriters.free_batch(model)
    assert isinstance(made, ModelProto)
    assert run(made, np.zeros((5, 4, 6), np.float32)).shape == (5, 24)


def test_declarations_that_rule_it_out() -> None:
    found = rewriters.free_batch(network([24], out=(24,)))
    assert isinstance(found, rewriters.Refusal)
    assert "output 'y' begins with 24, not with 1" in found.reason
    model = network([1, 24], out=(1, 24))
    model.graph.input.append(helper.make_tensor_value_info("state", TensorProto.FLOAT, [2, 1, 8]))
    found = rewriters.free_batch(model)
    assert isinstance(found, rewriters.Refusal)
    assert found.node == "state"
