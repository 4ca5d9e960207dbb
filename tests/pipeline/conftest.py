"""One finished tiny run, shared by the tests that only look at it."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxnas.pipeline import config, runner
from tests.pipeline import tiny


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model.onnx and data.npz."""
    place = tmp_path_factory.mktemp("tiny")
    tiny.write_data(place / "data.npz", tiny.write_model(place / "model.onnx"))
    return place


@pytest.fixture(scope="session")
def tiny_run(tiny_files: Path) -> Path:
    """A run directory in which every stage is complete."""
    flags = {
        "model": str(tiny_files / "model.onnx"),
        "data": str(tiny_files / "data.npz"),
        "output": str(tiny_files / "run"),
    }
    runner.begin(config.resolve({**tiny.SETTINGS, **flags}))
    return tiny_files / "run"
