"""The CIFAR scripts, on made-up sheets, and on the published weights where they are."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from onnxnas import data
from onnxnas.types import TensorInfo

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tools_{name}", TOOLS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_sheets_become_images(tmp_path: Path, rng: np.random.Generator) -> None:
    folder = tmp_path / "datasets" / "cifar10"
    folder.mkdir(parents=True)
    images = {"train_0": rng.integers(0, 256, (230, 32, 32, 3), np.uint8)}
    images["test_dev"] = rng.integers(0, 256, (100, 32, 32, 3), np.uint8)
    for name, stack in images.items():
        rows = -(-len(stack) // 100)
        sheet = np.zeros((rows * 32, 3200, 3), np.uint8)
        for i, image in enumerate(stack):
            row, column = divmod(i, 100)
            sheet[row * 32 : row * 32 + 32, column * 32 : column * 32 + 32] = image
        Image.fromarray(sheet).save(folder / f"{name}.webp", lossless=True)
    np.savez(folder / "labels.npz", train=np.arange(230) % 10, test_dev=np.arange(100) % 10)
    assert tool("prepare_cifar10").main([str(tmp_path), str(tmp_path / "out")]) == 0
    with np.load(tmp_path / "out" / "train.npz") as made:
        assert np.array_equal(made["x"], images["train_0"])
    float_image = TensorInfo("x", np.dtype(np.float32), (1, 3, 32, 32), ("n", 3, 32, 32))
    found = data.load(tmp_path / "out" / "cifar10.yaml", [float_image])
    assert found.test is not None
    assert np.array_equal(found.test.x["x"], images["test_dev"])
    assert (found.augment, found.normalise.mean) == (("crop", "flip"), (0.485, 0.456, 0.406))
    assert tool("prepare_cifar10").main([str(tmp_path), str(tmp_path / "bare"), "--no-labels"]) == 0
    scores = TensorInfo("y", np.dtype(np.float32), (1, 10), ("n", 10))
    bare = data.load(tmp_path / "bare" / "cifar10.yaml", [float_image], outputs=[scores])
    assert bare.test is not None
    assert bare.train.y is bare.test.y is None
    assert (bare.task, bare.normalise, bare.augment) == ("distillation", found.normalise, found.augment)


def plain_block(x: np.ndarray, w: dict[str, np.ndarray], name: str, stride: int) -> np.ndarray:
    """The block of the paper in numpy: its own convolution, BatchNorm and shortcut."""

    def conv_bn(x: np.ndarray, number: int, stride: int) -> np.ndarray:
        weight = w[f"{name}.conv{number}.weight"]
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))[:, :, ::stride, ::stride]
        y = np.einsum("bchwij,ocij->bohw", windows, weight)
        gamma, beta, mean, var = (
            w[f"{name}.bn{number}.{k}"][:, None, None]
            for k in ("weight", "bias", "running_mean", "running_var")
        )
        return (y - mean) / np.sqrt(var + 1e-5) * gamma + beta

    y = conv_bn(np.maximum(conv_bn(x, 1, stride), 0), 2, 1)
    short = np.zeros_like(y)
    front = (y.shape[1] - x.shape[1]) // 2
    short[:, front : front + x.shape[1]] = x[:, :, ::stride, ::stride]
    return np.maximum(y + short, 0)


def test_blocks_are_the_papers(rng: np.random.Generator) -> None:
    resnet = tool("cifar_resnet")
    torch.manual_seed(0)
    network = resnet.resnet20().eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    weights = {k: v.detach().numpy().astype(np.float64) for k, v in network.state_dict().items()}
    for name, channels, stride in (("layer1.0", 16, 1), ("layer2.0", 16, 2), ("layer3.1", 64, 1)):
        x = rng.normal(size=(2, channels, 8, 8)).astype(np.float32)
        with torch.no_grad():
            got = network.get_submodule(name)(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(got, plain_block(x, weights, name, stride), atol=1e-4)


@pytest.mark.parametrize(("depth", "parameters"), [(20, 269_722), (56, 853_018)])
def test_sizes_and_published_weights(depth: int, parameters: int, shared: Path) -> None:
    network = tool("cifar_resnet").resnet(depth)
    assert sum(p.numel() for p in network.parameters()) == parameters
    weights = load_file(shared / "data" / "weights" / f"resnet{depth}_cifar10.safetensors")
    own = {k for k in network.state_dict() if "num_batches" not in k}
    assert own == set(weights)


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_exported_resnet20_recognises_test_images(
    shared: Path, tmp_path: Path, exporter: str, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare, resnet = tool("prepare_cifar10"), tool("cifar_resnet")
    folder = shared / "data" / "datasets" / "cifar10"
    with np.load(folder / "labels.npz") as labels:
        y = labels["test_dev"][:300]
    np.savez(tmp_path / "test.npz", x=prepare.read_sheet(folder / "test_dev.webp", 300), y=y)
    weights = shared / "data" / "weights" / "resnet20_cifar10.safetensors"
    path = tmp_path / "r20.onnx"
    arguments = [
        "--weights",
        str(weights),
        "--exporter",
        exporter,
        "-o",
        str(path),
        "--test",
        str(tmp_path / "test.npz"),
    ]
    assert resnet.main(arguments) == 0
    assert "differs from torch by" in capsys.readouterr().out
    assert resnet.accuracy(path, tmp_path / "test.npz", None) > 88
