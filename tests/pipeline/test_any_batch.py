"""Files that fix the batch: freed and proved, or refused with what speaks against it."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from onnxnas import graph
from onnxnas.errors import ModelError
from onnxnas.pipeline import any_batch
from onnxnas.testing import graphs


def fixed(model: onnx.ModelProto) -> onnx.ModelProto:
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    return model


def test_a_network_that_does_not_depend_on_it() -> None:
    model = fixed(graphs.resnet())
    loaded = graph.load(model)
    assert any_batch.fixed(loaded) == ("x", 1)
    made, content = any_batch.freed(loaded, model.SerializeToString(), {})
    assert any_batch.fixed(made) is None
    assert (made.digest, made.source) == (loaded.digest, loaded.source)
    x = np.random.default_rng(0).standard_normal((5, 3, graphs.SIZE, graphs.SIZE)).astype(np.float32)
    one, many = (onnxruntime.InferenceSession(m) for m in (model.SerializeToString(), content))
    apart = np.concatenate([one.run(None, {"x": x[i : i + 1]})[0] for i in range(5)])
    np.testing.assert_allclose(many.run(None, {"x": x})[0], apart, atol=1e-5)


@pytest.mark.parametrize(
    ("op", "says"), [("ReduceMean", "two samples at once"), ("Squeeze", "fixed|Squeeze")]
)
def test_a_network_that_does(op: str, says: str) -> None:
    """The mean over the batch is subtracted; or the batch is squeezed away and put back."""
    model = fixed(graphs.resnet())
    last = next(node for node in model.graph.node if "y" in node.output)
    last.output[0] = "scores"
    if op == "ReduceMean":
        more = [
            helper.make_node("ReduceMean", ["scores"], ["mean"], axes=[0], keepdims=1, name="mean"),
            helper.make_node("Sub", ["scores", "mean"], ["y"], name="minus"),
        ]
    else:
        axes = onnx.numpy_helper.from_array(np.array([0], np.int64), "axes")
        model.graph.initializer.append(axes)
        more = [
            helper.make_node("Squeeze", ["scores", "axes"], ["flat"], name="squeeze"),
            helper.make_node("Unsqueeze", ["flat", "axes"], ["y"], name="unsqueeze"),
        ]
    model.graph.node.extend(more)
    with pytest.raises(ModelError, match=says):
        any_batch.freed(graph.load(model), model.SerializeToString(), {})
