"""Runs for another target than the default one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from onnxnas.errors import ConfigError
from onnxnas.handoff.verify import verify
from onnxnas.pipeline import config, runner
from tests.pipeline.test_optimize import settings


def test_a_run_for_openvino_in_bfloat16(tiny_files: Path, tmp_path: Path) -> None:
    """Baseline and candidates are measured so, and the bundle says so and holds here."""
    chosen = {"INFERENCE_PRECISION_HINT": "bf16", "PERFORMANCE_HINT": "THROUGHPUT"}
    flags = {
        **settings(tiny_files),
        "output": str(tmp_path / "run"),
        "runtime": "openvino",
        "runtime_settings": chosen,
    }
    result = runner.begin(config.resolve(flags))
    bundle = tmp_path / "run" / result["pareto"][0]["bundle"]
    told = json.loads((bundle / "runtime.json").read_text())
    assert told["runtime"] == "openvino"
    assert chosen.items() <= told["settings"].items()
    assert told["settings"]["INFERENCE_NUM_THREADS"] == 1
    assert verify(bundle).ok


def test_a_setting_that_the_runtime_does_not_know(tiny_files: Path, tmp_path: Path) -> None:
    """Refused before anything is written, with the nearest that there is."""
    flags = {**settings(tiny_files), "output": str(tmp_path / "run"), "runtime": "openvino"}
    wrong = config.resolve({**flags, "runtime_settings": {"PERFORMANCE_HINTS": "LATENCY"}})
    with pytest.raises(ConfigError, match="'PERFORMANCE_HINTS'; did you mean 'PERFORMANCE_HINT'"):
        runner.begin(wrong)
    assert not (tmp_path / "run").exists()
