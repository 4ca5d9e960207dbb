"""Runs without labels on a network with a picture as output, its batch fixed by the file."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml

from onnxnas.errors import ConfigError
from onnxnas.pipeline import config, finalists, runner
from onnxnas.testing import graphs
from tests.pipeline import tiny
from tests.pipeline.test_any_batch import fixed


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with model.onnx, whose output is N x 2 x 8 x 8, and pictures without labels."""
    onnx.save(fixed(graphs.unet()), tmp_path / "model.onnx")
    rng = np.random.default_rng(3)
    for name, n in (("train", 96), ("val", 32), ("test", 32)):
        np.savez(tmp_path / f"{name}.npz", x=rng.standard_normal((n, 3, 8, 8)).astype(np.float32))
    return tmp_path


def run(place: Path, metric: str, **settings: Any) -> dict[str, Any]:
    body = {"train": "train.npz", "val": "val.npz", "test": "test.npz", "metric": metric}
    (place / "data.yaml").write_text(yaml.safe_dump(body))
    flags = {
        "model": str(place / "model.onnx"),
        "data": str(place / "data.yaml"),
        "output": str(place / "run"),
    }
    return runner.begin(config.resolve({**tiny.SETTINGS, **flags, **settings}))


def no_nonsense(text: str) -> Any:
    """JSON without NaN and Infinity, which the standard does not have."""
    return json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} in JSON"))


def test_class_maps_are_compared_with_the_originals(place: Path) -> None:
    told = run(place, "miou")
    assert any("quality is miou with the original, of which 5 % may go" in note for note in told["notes"])
    assert told == no_nonsense((place / "run" / "result.json").read_text())
    assert told["metric"] == {"name": "miou", "unit": "%"}
    assert told["baseline"]["quality"] == 100.0
    assert all(0.0 < member["quality"] < 100.0 for member in told["pareto"])
    assert "takes any number of samples" in told["notes"][0]
    declared = onnx.load(place / "run" / told["pareto"][0]["bundle"] / "model.onnx").graph.input[0]
    assert declared.type.tensor_type.shape.dim[0].dim_param


def test_a_metric_without_a_best_needs_the_least_quality(place: Path) -> None:
    with pytest.raises(ConfigError, match="--limit quality="):
        run(place, "psnr")
    assert not (place / "run").exists()
    told = run(place, "psnr", limits={"quality": 1.0})
    assert no_nonsense((place / "run" / "result.json").read_text())["baseline"]["quality"] == 120.0
    found = [member["quality"] for member in told["pareto"]]
    assert all(math.isfinite(quality) and quality < 100 for quality in found)
    assert any("an exact answer" in note for note in told["notes"])
    assert not any("max_drop" in note for note in told["notes"])
    if told["best"] is None:  # tiny networks may be no faster
        assert any("least quality asked for, 1 dB" in note for note in told["notes"])
    assert (place / "run" / "report.html").is_file()


def test_finalists_are_within_reach_of_the_limit() -> None:
    before = {"baseline_quality": 38.0, "maximal_quality": 45.0}
    assert finalists.floor(before, 0.0, 0.1) == pytest.approx(38 * 0.9)
