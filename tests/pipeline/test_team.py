"""The super-network trained by several processes: started here, or by a launcher."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from onnxnas.errors import EnvironmentProblem
from onnxnas.pipeline import config, runner, team, trained
from onnxnas.pipeline.line import Line
from onnxnas.train import chosen_device, load_weights
from tests.pipeline import tiny
from tests.pipeline.test_optimize import settings


def flags(place: Path, output: str, **train: Any) -> dict[str, Any]:
    return {**settings(place, output), "train": {**tiny.SETTINGS["train"], **train}}


def trained_by(place: Path, output: str, **train: Any) -> dict[str, Any]:
    runner.begin(config.resolve(flags(place, output, **train)), last="train")
    return load_weights(place / output / "supernet")


def close(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(np.allclose(other[name], value, rtol=1e-3, atol=1e-4) for name, value in one.items())


@pytest.fixture(scope="module")
def in_parts(tiny_files: Path) -> dict[str, Any]:
    """The weights that one process comes to that works on its batches in two parts."""
    return trained_by(tiny_files, "in_parts", accumulate=2)


def test_two_processes_are_started_and_end(tiny_files: Path, in_parts: dict[str, Any]) -> None:
    assert close(trained_by(tiny_files, "two", processes=2), in_parts)
    plan = json.loads((tiny_files / "two" / "stages" / "train.plan.json").read_text())
    assert plan["processes"] == 2
    assert not [p for p in psutil.Process().children() if "onnxnas.pipeline.worker" in p.cmdline()]
    assert not close(trained_by(tiny_files, "one", processes=1), in_parts)  # other statistics


def test_a_launcher_starts_the_same_command_twice(
    tiny_files: Path, in_parts: dict[str, Any], root: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    body = flags(tiny_files, "launched")
    tiny_config = tiny_files / "launched.yaml"
    config.save(config.resolve(body), tiny_config)
    model, data, output = (str(body[name]) for name in ("model", "data", "output"))
    command = [sys.executable, "-m", "onnxnas", "train", model, "--data", data, "-o", output]
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [*command, "--config", str(tiny_config)],
            cwd=root,
            env={**os.environ, **world, "RANK": str(rank)},
            stdout=subprocess.DEVNULL,
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    assert close(load_weights(Path(output) / "supernet"), in_parts)


def test_a_process_that_dies_is_reported(tiny_run: Path) -> None:
    line = Line.at(tiny_run)
    with team.Team(line, 2) as two:
        (other,) = [p for p in psutil.Process().children() if "onnxnas.pipeline.worker" in p.cmdline()]
        other.send_signal(signal.SIGKILL)
        network = trained.fresh(line.space, "cpu")
        with pytest.raises(EnvironmentProblem, match="a process of the training is gone"):
            two.train(network, line.config.train)


def test_sizes_worth_trying(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line.at(tiny_run)
    monkeypatch.setattr("onnxnas.measure.available_cores", lambda: [0, 1, 2, 3])
    monkeypatch.setattr(team, "fitting_memory", lambda: 8)

    def found(seconds: float | None, **changes: Any) -> list[int]:
        options = line.config.train.model_copy(update={"processes": None, "batch_size": 128, **changes})
        line.config = line.config.model_copy(update={"train": options})
        return team.sizes(line, seconds)

    assert found(600.0) == [1, 4]
    assert found(60.0) == [1]  # starting takes too long
    assert found(None) == [1]
    assert found(600.0, batch_size=64) == [1, 2]  # 32 samples each, for statistics
    assert found(600.0, batch_size=63) == [1]
    assert found(None, processes=3) == [3]
    monkeypatch.setattr(team, "fitting_memory", lambda: 3)
    assert found(600.0) == [1]
    monkeypatch.setenv("WORLD_SIZE", "5")
    assert found(600.0, processes=3) == [5]


def test_the_device_is_chosen_where_nobody_says_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """An accelerator if there is one; one for each process of a launcher; what the user says stays."""
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert chosen_device("auto") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert chosen_device("auto") == "cuda"
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert chosen_device("auto") == chosen_device("cuda") == "cuda:1"
    assert chosen_device("cpu") == "cpu"
    assert chosen_device("cuda:0") == "cuda:0"
