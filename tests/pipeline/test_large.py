"""A model of more than 2 GB, its weights in a second file: too large for one protobuf message."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxnas import graph
from onnxnas.cli import main
from onnxnas.errors import ModelError
from onnxnas.pipeline import config
from onnxnas.pipeline.check import check
from onnxnas.pipeline.stages import prepare

WIDTH, LAYERS = 7168, 11  # 11 x 7168 x 7168 x 4 bytes = 2.26 GB


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "model.onnx"
    rng = np.random.default_rng(0)
    row = (rng.standard_normal(WIDTH * 64) / np.sqrt(WIDTH)).astype(np.float32)
    nodes, weights, x = [], [], "x"
    for index in range(LAYERS):
        values = np.resize(np.roll(row, 17 * index), (WIDTH, WIDTH))
        weights.append(numpy_helper.from_array(values, f"w{index}"))
        nodes.append(helper.make_node("MatMul", [x, f"w{index}"], [f"h{index}"], name=f"fc{index}"))
        nodes.append(helper.make_node("Tanh", [f"h{index}"], [f"a{index}"], name=f"tanh{index}"))
        x = f"a{index}"
    made = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDTH])],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, ["n", WIDTH])],
        weights,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path, save_as_external_data=True, location="model.data")
    return path


@pytest.mark.slow
def test_inspect_extract_and_run(large: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(1).standard_normal((2, WIDTH)).astype(np.float32)
    assert main(["inspect", str(large)]) == 0
    for subnet, small in (("max", False), ("min", True)):
        out = tmp_path / subnet / "model.onnx"
        out.parent.mkdir()
        assert main(["extract", str(large), "--subnet", subnet, "-o", str(out)]) == 0
        (found,) = onnxruntime.InferenceSession(str(out)).run(None, {"x": x})
        size = sum(file.stat().st_size for file in out.parent.iterdir())
        assert (size < 300_000_000) == small
        if not small:
            (expected,) = onnxruntime.InferenceSession(str(large)).run(None, {"x": x})
            np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.slow
def test_check_holds(large: Path) -> None:
    told = check(large, samples=2)
    assert told["ok"], told["problems"]
    assert min(row["macs_ratio"] for row in told["subnets"]) < 0.1


@pytest.mark.slow
def test_a_run_is_refused_plainly(large: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.zeros((256, WIDTH), np.float32))
    settings = config.resolve(
        {"model": str(large), "data": str(tmp_path / "data.npz"), "output": str(tmp_path / "run")}
    )
    with pytest.raises(ModelError, match="more than 2 GB"):
        prepare.examine(settings)


def test_what_is_too_large() -> None:
    tensor = numpy_helper.from_array(np.zeros((4, 8), np.float32), "w")
    model = helper.make_model(helper.make_graph([], "g", [], [], [tensor]))
    assert not graph.too_large(model)
    assert graph.too_large(model, largest=127)
    assert not graph.too_large(model, largest=128)
