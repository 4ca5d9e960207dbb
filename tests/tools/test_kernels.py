"""The table of learned kernel transformations, on a short training of the demonstration network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxnas import analysis, graph, space
from onnxnas.pipeline import config, runner
from onnxnas.supernet import SuperNetwork
from onnxnas.types import Subnet
from tests.tools.test_cifar import tool


def test_kernels_are_cropped_to_what_each_offers(root: Path) -> None:
    places = space.build(analysis.analyse(graph.load(root / "models" / "digits_resnet.onnx")))
    script = tool("bench_kernels")
    assert script.uniform(places, 5) == Subnet()
    assert set(script.uniform(places, 3).kernel) == {k.id for k in places.kernels}
    assert set(script.uniform(places, 1).kernel.values()) == {(3, 3)}  # the smallest that there is


def test_identities_leave_all_other_weights(root: Path) -> None:
    places = space.build(analysis.analyse(graph.load(root / "models" / "digits_resnet.onnx")))
    network = SuperNetwork(places)
    own = {name: value + 0.25 for name, value in network.weights().items()}
    network.load(own)
    for name, value in tool("bench_kernels").with_identities(network).weights().items():
        expected = np.eye(len(value)) if name.startswith("kernel:") else own[name]
        np.testing.assert_array_equal(value, expected)


def test_table(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = {
        "model": str(root / "models" / "digits_resnet.onnx"),
        "data": str(root / "models" / "digits.yaml"),
        "output": str(tmp_path / "run"),
        "time_budget": None,
        "train": {"epochs": 0.2, "processes": 1, "eval_every": 0},
    }
    runner.begin(config.resolve(flags), last="train")
    assert tool("bench_kernels").main([str(tmp_path / "run"), "--limit", "64"]) == 0
    cells = [[c.strip() for c in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in cells[2:]] == ["5x5", "3x3"]
    assert cells[2][1] == "1.00x" < cells[3][1]
    assert cells[2][3] == cells[2][4]  # nothing cropped, no matrix used
    assert all(0 <= float(value) <= 100 for row in cells[2:] for value in row[2:])
