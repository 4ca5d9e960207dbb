"""What the tests of the graph package share: a small model and ways to damage one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from onnxnas import graph
from onnxnas.errors import ModelError
from onnxnas.testing import graphs


@pytest.fixture
def small() -> ModelProto:
    """Three nodes: Conv 'conv', Relu 'relu', GlobalAveragePool 'pool'."""
    weight = numpy_helper.from_array(graphs.Builder(0).normal(4, 3, 3, 3), "w")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="conv"),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("GlobalAveragePool", ["b"], ["y"], name="pool"),
    ]
    body = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4, 1, 1])],
        [weight],
    )
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def refuse(tmp_path: Path) -> Callable[[ModelProto | bytes], str]:
    """Writes a model, loads it, and returns the one-line message of the ModelError that must come."""

    def refuse(model: ModelProto | bytes) -> str:
        path = tmp_path / "model.onnx"
        path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
        with pytest.raises(ModelError) as caught:
            graph.load(path)
        message = str(caught.value)
        assert "\n" not in message
        assert message.startswith(str(path))
        return message

    return refuse
