"""Work on one run in several processes."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxnas.errors import EnvironmentProblem, RunError
from onnxnas.pipeline import config, finetuning
from onnxnas.pipeline.crew import Crew, fitting, makespan
from onnxnas.pipeline.events import Silent
from onnxnas.pipeline.line import Line
from onnxnas.pipeline.run_dir import RunDirectory
from onnxnas.types import Subnet


class Heard(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []
        self.stages: set[str] = set()

    def say(self, text: str) -> None:
        self.said.append(text)

    def step(self, stage: str, done: float, total: float, text: str = "") -> None:
        self.stages.add(stage)


def opened(run: Path, reporter: Silent | None = None, **changes: Any) -> Line:
    settings = config.load(run / "config.yaml")
    settings = settings.model_copy(update={"finalise": settings.finalise.model_copy(update=changes)})
    return Line(RunDirectory(run), settings, reporter or Silent())


def requests() -> list[dict[str, Any]]:
    subnets = (Subnet(), Subnet(skip=frozenset({"b0"})), Subnet())
    return [
        {"do": "tune", "subnet": subnet.to_json(), "index": index, "epochs": 0.5, "limit": None}
        for index, subnet in enumerate(subnets, 1)
    ]


@pytest.fixture
def copy(tiny_run: Path, tmp_path: Path) -> Path:
    """A run whose finalists have yet to be tuned."""
    shutil.copytree(tiny_run, tmp_path / "run", ignore=shutil.ignore_patterns("finalists"))
    return tmp_path / "run"


def test_several_processes_give_what_one_gives(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three requests for two processes that know the teacher's answers: this process' weights, bit by bit."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    alone = Crew(opened(copy), 1).map(requests())
    names = [Path("finalists") / f"{index:02d}" / "model.onnx" for index in (1, 2, 3)]
    expected = [(copy / name).read_bytes() for name in names]
    shutil.rmtree(copy / "finalists")
    heard = Heard()
    with Crew(opened(copy, heard), 2) as crew:
        crew._threads = 1
        crew.map([{"do": "teach", "epoch": 0, "epochs": 1}])
        together = crew.map(requests())
    assert finetuning.lessons(opened(copy)).known() == 1
    assert together == alone
    assert [(copy / name).read_bytes() for name in names] == expected
    assert expected[0] == expected[2] != expected[1]  # all see the same batches
    assert len([text for text in heard.said if text.startswith("finalist")]) == 3
    assert {"finalist 1", "finalist 2", "finalist 3"} <= heard.stages


def test_answers_are_kept_where_they_are_worth_it(tiny_run: Path) -> None:
    """For several finalists, whole epochs, or where they come again; not too large ones, or where only labels teach."""
    line = opened(tiny_run)
    samples, scores = line.data.train.n, np.prod((line.graph.tensors[line.graph.outputs[0]].shape or ())[1:])
    assert finetuning.kept_epochs(line, 2.3, 2) == 3
    assert finetuning.kept_epochs(line, 2.3, 1) == 0
    again = opened(tiny_run)
    again.config = changed(again.config, "finalise", distinct_epochs=2)
    assert [finetuning.kept_epochs(again, 2.3, pieces) for pieces in (1, 2)] == [2, 2]
    assert finetuning.kept_epochs(again, 1.3, 1) == 0
    most = int(finetuning.MOST_KEPT // (4 * scores * samples))
    assert finetuning.kept_epochs(line, most, 4) == most
    assert finetuning.kept_epochs(line, most + 1, 4) == 0
    line.config = changed(line.config, "train", distillation=0.0)
    assert finetuning.kept_epochs(line, 2.3, 2) == 0


def changed(whole: config.Config, section: str, **changes: float) -> config.Config:
    return whole.model_copy(update={section: getattr(whole, section).model_copy(update=changes)})


def test_errors_come_back_as_they_were(copy: Path) -> None:
    (copy / "model.onnx").write_bytes(b"damaged")
    with Crew(opened(copy), 2) as crew, pytest.raises(RunError, match=r"model\.onnx was changed"):
        crew.map(requests())


def test_a_process_that_dies_is_reported(copy: Path) -> None:
    with Crew(opened(copy), 2) as crew:
        crew._gathered(2)[1]._process.send_signal(signal.SIGKILL)
        with pytest.raises(EnvironmentProblem, match=r"status -9.*finalise\.processes"):
            crew.map(requests())


def test_processes_end_with_their_owner(copy: Path) -> None:
    """Its input closes when the owner dies, however that happens."""
    with Crew(opened(copy), 2) as crew:
        members = crew._gathered(2)
        members[0].give(0, requests()[0])
        members[0]._input.close()
        assert members[0]._process.wait(timeout=60) == 0
    for member in members:
        with pytest.raises(ProcessLookupError):
            os.kill(member._process.pid, 0)


def test_how_many_fit(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxnas.measure.available_cores", lambda: tuple(range(8)))
    monkeypatch.setattr("onnxnas.measure.memory_available", lambda: 1 << 50)
    assert fitting(opened(copy, processes=None), 4) == 4
    assert fitting(opened(copy, processes=None), 40) == 8
    assert fitting(opened(copy, processes=2), 4) == 2
    assert fitting(opened(copy, processes=6), 4) == 4
    monkeypatch.setattr("onnxnas.measure.memory_available", lambda: 1)
    assert fitting(opened(copy, processes=None), 4) == 1


@pytest.mark.parametrize(
    ("seconds", "size", "expected"),
    [([3, 1, 1, 1], 2, 3), ([1, 1, 1, 3], 2, 4), ([2, 2, 2], 2, 4), ([5, 1], 1, 6), ([5, 1], 4, 5)],
)
def test_makespan(seconds: list[float], size: int, expected: float) -> None:
    assert makespan(seconds, size) == expected
