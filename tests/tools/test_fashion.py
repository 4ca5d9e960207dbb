"""The Fashion-MNIST script: its networks are what it says, its splits are apart, it trains and exports."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from onnxnas import analysis, graph
from onnxnas.exporting import InputSpec, export_module
from tests.tools.test_cifar import tool


def found(module: torch.nn.Module, path: Path, exporter: str = "torchscript") -> analysis.Analysis:
    export_module(module, [InputSpec("x", (1, 1, 28, 28))], path, exporter=exporter)  # type: ignore[arg-type]
    return analysis.analyse(graph.load(path))


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_heads_hidden_units_and_depth_of_the_transformer(exporter: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    got = found(tool("train_fashion").VisionTransformer(32, 4, 64, blocks=2), tmp_path / "v.onnx", exporter)
    assert [b.kind for b in got.blocks] == ["attention", "feed_forward"] * 2
    assert sorted(g.size for g in got.groups) == [4, 4, 32, 64, 64]  # heads, width, hidden units
    assert not got.kernels


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_kernels_of_the_convolutional_network(exporter: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    got = found(
        tool("train_fashion").LargeKernels((8, 16), plain=1, inverted=2), tmp_path / "k.onnx", exporter
    )
    assert [k.size for k in got.kernels] == [(7, 7), (5, 5), (5, 5), (5, 5), (7, 7), (7, 7)]
    assert [len(k.choices) for k in got.kernels] == [3, 2, 2, 2, 3, 3]
    assert len(got.blocks) == 3  # one plain, two inverted
    assert sorted(g.size for g in got.groups) == [8, 8, 16, 24, 48, 48]


def test_data_are_split_and_a_network_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tool("train_fashion")
    rng = np.random.default_rng(0)
    y = np.arange(400) % 10
    x = rng.integers(0, 80, (400, 28, 28), np.uint8)
    x[np.arange(400), 2 * y + 4] = 255  # a bright row at a height that is the class
    folder = tmp_path / "datasets"
    folder.mkdir()
    np.savez(
        folder / "fashion_mnist_subset.npz",
        **{"train_images": x[:320], "train_labels": y[:320], "test_images": x[320:], "test_labels": y[320:]},
    )
    recipe = script.Recipe(
        lambda: script.VisionTransformer(16, 2, 32, blocks=1, patch=7), 2, 1e-2, 0.0, batch=32
    )
    monkeypatch.setitem(script.RECIPES, "vit", recipe)
    out = tmp_path / "out"
    assert script.main([str(tmp_path), str(out), "--network", "vit"]) == 0
    told = capsys.readouterr().out
    assert "epoch 2: loss" in told
    assert "% on test" in told
    parts = {name: np.load(out / f"{name}.npz") for name in ("train", "val", "test")}
    assert {name: len(part["y"]) for name, part in parts.items()} == {"train": 280, "val": 40, "test": 80}
    assert np.bincount(parts["val"]["y"]).tolist() == [4] * 10
    seen = {image.tobytes() for image in parts["train"]["x"]}
    assert not seen & {image.tobytes() for image in (*parts["val"]["x"], *parts["test"]["x"])}
    assert graph.load(out / "vit.onnx").tensors["x"].declared is not None


def test_data_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no such file"):
        tool("train_fashion").prepare(tmp_path, tmp_path / "out")
