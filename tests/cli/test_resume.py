"""kill -9 in each stage; resuming gives what an uninterrupted run gives."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline import tiny

pytestmark = pytest.mark.slow


def command(root: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    return subprocess.Popen(
        [sys.executable, "-m", "onnxnas", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
        # a shell that runs the tests in the background would have it ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def begin(root: Path, place: Path, run: Path) -> subprocess.Popen[str]:
    files = [
        str(place / "model.onnx"),
        "--data",
        str(place / "data.npz"),
        "--config",
        str(place / "run.yaml"),
    ]
    return command(root, "optimize", *files, "-o", str(run))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model, data and a configuration whose training takes some seconds."""
    made = tmp_path_factory.mktemp("resume")
    tiny.write_data(made / "data.npz", tiny.write_model(made / "model.onnx"), n=256)
    train = {**tiny.SETTINGS["train"], "epochs": 3}
    tiny.write_config(made / "run.yaml", train=train)
    return made


def outcome(run: Path) -> dict[str, Any]:
    """All that is the same however often a run is interrupted: everything but times."""
    with (run / "trials.csv").open() as stream:
        columns = ("number", "status", "quality", "macs", "skip", "width", "kernel")
        trials = [tuple(row[c] for c in columns) for row in csv.DictReader(stream)]
    result = json.loads((run / "result.json").read_text())
    members = sorted((e["quality"], e["macs"], json.dumps(e["subnet"])) for e in result["pareto"])
    return {
        "trials": trials,
        "members": members,
        "supernet": result["supernet_max_quality"],
        "weights": (run / "supernet" / "weights.safetensors").read_bytes(),
        "model": (run / "model.onnx").read_bytes(),
    }


@pytest.fixture(scope="module")
def uninterrupted(root: Path, place: Path) -> dict[str, Any]:
    process = begin(root, place, place / "whole")
    _, told = process.communicate(timeout=300)
    assert process.returncode == 0, told
    return outcome(place / "whole")


POINTS: dict[str, Callable[[Path], bool]] = {
    "at once": lambda run: (run / "config.yaml").exists(),
    "training": lambda run: (run / "supernet" / "state.json").exists(),
    "searching": lambda run: (run / "study.db").exists() and (run / "stages" / "search.plan.json").exists(),
    "finalising": lambda run: (run / "finalists" / "01").exists(),
    "measuring": lambda run: (run / "finalists" / "01" / "done.json").exists(),
}


@pytest.mark.parametrize("point", POINTS)
def test_killed_and_resumed(point: str, root: Path, place: Path, uninterrupted: dict[str, Any]) -> None:
    run = place / point.replace(" ", "_")
    process = begin(root, place, run)
    deadline = time.monotonic() + 240
    while not POINTS[point](run):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    again = command(root, "resume", str(run))
    _, told = again.communicate(timeout=300)
    assert again.returncode == 0, told
    assert outcome(run) == uninterrupted


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_politely(
    number: signal.Signals, root: Path, place: Path, uninterrupted: dict[str, Any]
) -> None:
    run = place / f"signal_{number.value}"
    process = begin(root, place, run)
    deadline = time.monotonic() + 240
    while not POINTS["searching"](run):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, number)
    began = time.monotonic()
    _, told = process.communicate(timeout=60)
    assert time.monotonic() - began < 10
    assert process.returncode == 4
    assert told.splitlines()[-1] == f"error: interrupted; continue with: onnxnas resume {run}"
    assert "Traceback" not in told
    again = command(root, "resume", str(run))
    _, told = again.communicate(timeout=300)
    assert again.returncode == 0, told
    assert outcome(run) == uninterrupted
