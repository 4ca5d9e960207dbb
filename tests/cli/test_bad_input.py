"""Whatever the user gives wrongly: exit 2, one line, no run directory, nothing of theirs changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnxnas.cli import main
from onnxnas.testing import graphs
from tests.pipeline import tiny

Arrays = dict[str, NDArray[Any]]


def snapshot(place: Path) -> dict[str, str]:
    return {
        str(path.relative_to(place)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(place.rglob("*"))
        if path.is_file()
    }


def refused(place: Path, capsys: pytest.CaptureFixture[str], says: str, *extra: str) -> str:
    """`onnxnas optimize` in `place` ends with exit 2 and one line that contains `says`."""
    before = snapshot(place)
    arguments = ["--data", str(place / "data.npz"), "--config", str(place / "run.yaml")]
    status = main(["optimize", str(place / "model.onnx"), *arguments, "-o", str(place / "run"), *extra])
    told = capsys.readouterr()
    assert status == 2, told.err
    assert told.out == ""
    assert told.err.startswith("error: ")
    assert told.err.count("\n") == 1
    assert says in told.err
    assert not (place / "run").exists()
    assert snapshot(place) == before
    return told.err


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a good model, good data and a good configuration."""
    tiny.write_data(tmp_path / "data.npz", tiny.write_model(tmp_path / "model.onnx"), n=96)
    tiny.write_config(tmp_path / "run.yaml")
    return tmp_path


# models


def test_not_onnx(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "model.onnx").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    refused(place, capsys, "it is a PNG image")


def test_truncated(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = (place / "model.onnx").read_bytes()
    for share in (0.0, 0.1, 0.5, 0.99):
        (place / "model.onnx").write_bytes(content[: int(len(content) * share)])
        refused(place, capsys, str(place / "model.onnx"))


def test_missing_initializer(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = graphs.resnet()
    gone = model.graph.initializer.pop(3)
    onnx.save(model, place / "model.onnx")
    refused(place, capsys, gone.name)


def test_external_data_outside(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = graphs.resnet()
    tensor = model.graph.initializer[0]
    size = len(numpy_helper.to_array(tensor).tobytes())
    (place / "models").mkdir()
    (place / "secret.bin").write_bytes(bytes(size))
    tensor.ClearField("raw_data")
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret.bin")
    (place / "model.onnx").write_bytes(model.SerializeToString())
    (place / "model.onnx").rename(place / "models" / "model.onnx")
    (place / "model.onnx").symlink_to("models/model.onnx")
    refused(place, capsys, "secret.bin")


def test_unknown_operators_everywhere(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nodes = [
        helper.make_node("Blur", ["x"], ["h"], name="blur", domain="com.example"),
        helper.make_node("Sharpen", ["h", "w"], ["y"], name="sharpen", domain="com.example"),
    ]
    image = ["N", 3, 8, 8]
    body = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, image)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, image)],
        [numpy_helper.from_array(np.ones((3, 3), np.float32), "w")],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    onnx.save(helper.make_model(body, opset_imports=opsets, ir_version=8), place / "model.onnx")
    refused(place, capsys, "Blur")


def test_a_batch_that_cannot_be_freed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the samples of a batch have in common is taken off each."""
    model = graphs.resnet()
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    last = next(node for node in model.graph.node if "y" in node.output)
    last.output[0] = "scores"
    model.graph.node.extend(
        [
            helper.make_node("ReduceMean", ["scores"], ["mean"], axes=[0], keepdims=1, name="mean"),
            helper.make_node("Sub", ["scores", "mean"], ["y"], name="minus"),
        ]
    )
    onnx.save(model, place / "model.onnx")
    refused(place, capsys, "fixed batch of 1")


def test_integers_only(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"], name="product")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, ["N", 2])],
        [numpy_helper.from_array(np.ones((4, 2), np.uint8), "w")],
    )
    onnx.save(
        helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        place / "model.onnx",
    )
    refused(place, capsys, "no float weights")


def test_nothing_can_change(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(place, capsys, "nothing in this model can change", "--elastic", "kernel")


# data


def nan(x: Arrays) -> None:
    x["x"][17, 0, 0, 0] = np.nan


def shape(x: Arrays) -> None:
    x["x"] = x["x"][:, :, :, :7]


def dtype(x: Arrays) -> None:
    x["x"] = x["x"].astype("U8")


def labels(x: Arrays) -> None:
    x["y"][11] = 10


def negative(x: Arrays) -> None:
    x["y"][12] = -3


def length(x: Arrays) -> None:
    x["y"] = x["y"][:-1]


def empty(x: Arrays) -> None:
    x["x"], x["y"] = x["x"][:0], x["y"][:0]


def few(x: Arrays) -> None:
    x["x"], x["y"] = x["x"][:24], x["y"][:24]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (nan, "17"), (shape, "7"), (dtype, "x"), (labels, "11"), (negative, "12"), (length, "95"), (empty, "0"),
        (few, "batch"),
    ],
)  # fmt: skip
def test_bad_data(
    damage: Callable[[Arrays], None], says: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with np.load(place / "data.npz") as found:
        arrays = dict(found)
    damage(arrays)
    np.savez(place / "data.npz", **arrays)
    told = refused(place, capsys, says)
    assert "data.npz" in told


def test_data_that_are_not_there(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "data.npz").unlink()
    refused(place, capsys, "data.npz: no such file")


# configuration


def test_unknown_key(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.write_config(place / "run.yaml", max_dorp=1.0)
    refused(place, capsys, "unknown key 'max_dorp'; did you mean 'max_drop'?")


def test_unknown_runtime(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(place, capsys, "'tensorrt' is not known", "--runtime", "tensorrt")


# run directories


def test_output_that_is_something_else(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "mine").mkdir()
    (place / "mine" / "thesis.tex").write_text("mine")
    before = snapshot(place)
    for output, says in ((place / "mine", "holds files but no run"), (place / "data.npz", "is a file")):
        arguments = [
            "--data",
            str(place / "data.npz"),
            "--config",
            str(place / "run.yaml"),
            "-o",
            str(output),
        ]
        assert main(["optimize", str(place / "model.onnx"), *arguments]) == 2
        assert says in capsys.readouterr().err
    assert snapshot(place) == before
