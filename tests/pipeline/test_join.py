"""A second process helps a search: what the first leaves it completes, and the first takes its results."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from onnxnas import measure
from onnxnas.cli import main
from onnxnas.errors import EnvironmentProblem, Interrupted, RunError
from onnxnas.pipeline import runner
from onnxnas.pipeline.events import Silent


class Leaving(Silent):
    """Interrupts the search after so many trials."""

    def __init__(self, after: int) -> None:
        self._after = after

    def step(self, stage: str, done: float, total: float, text: str = "") -> None:
        if stage == "search" and done >= self._after:
            raise KeyboardInterrupt


@pytest.fixture
def begun(tiny_run: Path, tmp_path: Path) -> Path:
    """A run whose search was left after three trials."""
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    with pytest.raises(Interrupted):
        runner.proceed(run, Leaving(3), stage="search", redo=True)
    return run


def test_a_helper_completes_what_was_begun(
    tiny_run: Path, begun: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["search", str(begun), "--join", "--json"]) == 0
    body: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert body["evaluations"] == 8
    assert not (begun / "trials.csv").exists()
    log = (begun / "log.txt").read_text()
    runner.proceed(begun, stage="search")
    assert (begun / "log.txt").read_text().count(": trial ") == log.count(": trial ")
    keep = ["number", "status", "quality", "macs", "skip", "width"]
    assert columns(begun, keep) == columns(tiny_run, keep)


def test_what_cannot_be_joined(tiny_run: Path, begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunError, match="is complete"):
        runner.join(tiny_run)
    with pytest.raises(RunError, match="not a run directory"):
        runner.join(tiny_run / "nowhere")
    assert main(["search", str(begun), "--join", "--redo"]) == 2
    real = measure.environment()
    other = {**real, "cpu": {**real["cpu"], "model": "Z80"}}
    monkeypatch.setattr(measure, "environment", lambda: other)
    with pytest.raises(EnvironmentProblem, match=r"another kind of machine \(processor model: .*Z80"):
        runner.join(begun)
    (begun / "stages" / "search.plan.json").unlink()
    with pytest.raises(RunError, match="has not begun"):
        runner.join(begun)


def columns(run: Path, names: list[str]) -> list[tuple[str, ...]]:
    with (run / "trials.csv").open(newline="") as stream:
        return [tuple(row[name] for name in names) for row in csv.DictReader(stream)]
