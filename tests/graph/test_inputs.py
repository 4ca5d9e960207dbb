"""Example inputs are such that ONNX Runtime can run the model on them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxnas import graph
from onnxnas.errors import ModelError
from onnxnas.testing import graphs


def test_bert_inputs_stay_in_the_table_and_the_mask_is_ones() -> None:
    loaded = graph.load(graphs.bert())
    ids = np.concatenate([graph.example_inputs(loaded, seed=s, batch=20)["input_ids"] for s in range(5)])
    assert ids.shape == (100, 6)
    assert ids.min() == 0
    assert ids.max() == 29  # the table has 30 rows, and 600 draws reach both ends
    mask = graph.example_inputs(loaded, batch=2)["attention_mask"]
    assert mask.tolist() == [[1] * 6] * 2


def test_same_seed_same_inputs() -> None:
    loaded = graph.load(graphs.resnet())
    one, two, three = (graph.example_inputs(loaded, seed=s)["x"] for s in (1, 1, 2))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, three)
    assert one.dtype == np.float32
    assert abs(float(one.mean())) < 0.3
    assert 0.7 < float(one.std()) < 1.3


def test_batch_and_shapes() -> None:
    loaded = graph.load(graphs.resnet())
    assert graph.example_inputs(loaded, batch=5)["x"].shape == (5, 3, 8, 8)
    assert graph.example_inputs(loaded, shapes={"x": (2, 3, 16, 16)})["x"].shape == (2, 3, 16, 16)
    with pytest.raises(ModelError, match="not an input"):
        graph.example_inputs(loaded, shapes={"z": (1,)})


def test_integer_compared_with_a_constant_and_state_batch() -> None:
    """A sampling rate that must be the one the model knows; the batch is axis 1 of the state."""
    nodes = [
        helper.make_node("Equal", ["sr", "rate"], ["same"]),
        helper.make_node("Where", ["same", "state", "zero"], ["y"]),
        helper.make_node("Neg", ["input"], ["z"]),
    ]
    infos = {
        "input": (TensorProto.FLOAT, ["batch", 4]),
        "state": (TensorProto.FLOAT, [2, "batch", 3]),
        "sr": (TensorProto.INT64, []),
    }
    outputs = {"y": (TensorProto.FLOAT, [2, "batch", 3]), "z": (TensorProto.FLOAT, ["batch", 4])}
    body = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(k, *v) for k, v in infos.items()],
        [helper.make_tensor_value_info(k, *v) for k, v in outputs.items()],
        [numpy_helper.from_array(np.array(16000), "rate"), numpy_helper.from_array(np.float32(0), "zero")],
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    feeds = graph.example_inputs(graph.load(model), batch=3)
    assert feeds["sr"].shape == ()
    assert feeds["sr"] == 16000
    assert feeds["state"].shape == (2, 3, 3)
    assert feeds["input"].shape == (3, 4)


@pytest.mark.parametrize("name", ["magika_v2_1", "silero_vad_16k_op15"])
def test_real_models_run(shared: Any, name: str) -> None:
    path = shared / "data" / "onnx" / f"{name}.onnx"
    shapes = {"input": (1, 576)} if name.startswith("silero") else None
    loaded = graph.load(path, shapes=shapes)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    outputs = session.run(None, graph.example_inputs(loaded))
    assert all(np.isfinite(output).all() for output in outputs)
