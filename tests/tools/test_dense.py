"""The scripts for networks with dense outputs, on made-up photographs and networks."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from PIL import Image

from onnxnas import data
from onnxnas.testing import graphs
from onnxnas.types import TensorInfo
from tests.tools.test_cifar import tool

FLOAT = np.dtype(np.float32)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Ten photographs, number i all of grey level 20 i."""
    folder = tmp_path / "shared" / "datasets" / "imagenet_samples_224"
    folder.mkdir(parents=True)
    for i in range(10):
        Image.new("RGB", (224, 224), (20 * i,) * 3).save(folder / f"n{i:02d}.jpg", quality=95)
    return tmp_path / "shared"


def test_no_photograph_is_in_two_splits(photographs: Path, tmp_path: Path) -> None:
    assert tool("prepare_dense").main([str(photographs), str(tmp_path / "out")]) == 0
    seen: dict[str, set[int]] = {}
    for name, count in (("train", 6 * 4), ("val", 2 * 2), ("test", 2 * 2)):
        with np.load(tmp_path / "out" / "segmentation" / f"{name}.npz") as made:
            assert made["x"].shape == (count, 257, 257, 3)
            seen[name] = {round(float(level) / 20) for level in made["x"].mean((1, 2, 3))}
    assert seen == {"train": {0, 1, 2, 5, 6, 7}, "val": {3, 8}, "test": {4, 9}}


def test_data_is_as_the_networks_take_it(photographs: Path, tmp_path: Path) -> None:
    tool("prepare_dense").main([str(photographs), str(tmp_path / "out")])
    image = TensorInfo("sub_7", FLOAT, (1, 257, 257, 3), (1, 257, 257, 3))
    maps = TensorInfo("maps", FLOAT, (1, 257, 257, 21), (1, 257, 257, 21))
    found = data.load(tmp_path / "out" / "segmentation" / "data.yaml", [image], outputs=[maps])
    assert (found.task, found.metric, found.class_axis) == ("distillation", "miou", 3)
    ((x, y),) = data.batches(found.test.take(np.array([2])), found, 1) if found.test else [({}, None)]
    assert y is None
    assert x["sub_7"] == pytest.approx(180 / 127.5 - 1, abs=0.02)
    plane = TensorInfo("input", FLOAT, (1, 1, 224, 224), ("batch_size", 1, 224, 224))
    found = data.load(tmp_path / "out" / "super_resolution" / "data.yaml", [plane])
    ((x, _),) = data.batches(found.val.take(np.array([0])), found, 1)
    assert x["input"] == pytest.approx(60 / 255, abs=0.01)


def test_fidelity_of_two_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A bias of 0.1 on every output is 20 dB; the file may fix its batch."""
    model = graphs.unet()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, tmp_path / "a.onnx")
    last = next(node for node in model.graph.node if "y" in node.output)
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == last.input[2])
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(0.1), bias.name))
    onnx.save(model, tmp_path / "b.onnx")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "d.npz", x=rng.standard_normal((12, 3, 8, 8)).astype(np.float32))
    (tmp_path / "d.yaml").write_text("train: d.npz\nval: d.npz\nmetric: psnr\n")
    arguments = [str(tmp_path / "a.onnx"), str(tmp_path / "b.onnx"), "--data", str(tmp_path / "d.yaml")]
    assert tool("fidelity").main(arguments) == 0
    assert "20.00 psnr dB" in capsys.readouterr().out
    assert tool("fidelity").main([*arguments, "--metric", "agreement"]) == 0
    assert "100.00 agreement %" in capsys.readouterr().out  # the same for all classes
    # by labels that one of the two answers, moved by 0.1, and not by the other's outputs
    session = onnxruntime.InferenceSession(tmp_path / "b.onnx")
    x = np.load(tmp_path / "d.npz")["x"]
    y = np.concatenate([session.run(None, {"x": x[i : i + 1]})[0] for i in range(len(x))]) + np.float32(0.1)
    np.savez(tmp_path / "d.npz", x=x, y=y)
    (tmp_path / "d.yaml").write_text("train: d.npz\nval: d.npz\ntask: regression\nmetric: psnr\n")
    assert tool("fidelity").main([*arguments, "--labels"]) == 0
    assert "20.00 psnr dB against the labels" in capsys.readouterr().out


def test_which_of_two_classifiers_is_right_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One answers with its input, the other with its last two classes exchanged; the counts are known by hand."""
    for name, order in (("a", [0, 1, 2]), ("b", [0, 2, 1])):
        nodes = [helper.make_node("Gather", ["x", "order"], ["y"], axis=1)]
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])]
        outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])]
        weights = [onnx.numpy_helper.from_array(np.array(order), "order")]
        body = helper.make_graph(nodes, name, inputs, outputs, weights)
        opset = [helper.make_opsetid("", 17)]
        onnx.save(helper.make_model(body, opset_imports=opset, ir_version=8), tmp_path / f"{name}.onnx")
    # (largest input, label): both right 4 times, the first alone 5, the second alone 1, neither 2
    rows = [(0, 0)] * 4 + [(1, 1)] * 3 + [(2, 2)] * 2 + [(1, 2)] + [(0, 1)] * 2
    x = np.eye(3, dtype=np.float32)[[largest for largest, _ in rows]]
    np.savez(tmp_path / "d.npz", x=x, y=np.array([label for _, label in rows]))
    (tmp_path / "d.yaml").write_text("train: d.npz\nval: d.npz\n")
    arguments = [*(str(tmp_path / name) for name in ("a.onnx", "b.onnx")), "--data", str(tmp_path / "d.yaml")]
    assert tool("fidelity").main([*arguments, "--labels"]) == 0
    said = capsys.readouterr().out
    assert f"{100 * 5 / 12:.2f} top1" in said  # of the second
    probability = 2 * (math.comb(6, 0) + math.comb(6, 1)) / 2**6
    assert f"the original on 5, the other on 1; probability {probability:.2f}" in said
