"""Glances at candidates in a whole search."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from onnxnas import search, train
from onnxnas.pipeline import config, runner
from onnxnas.pipeline.events import Silent
from onnxnas.pipeline.glances import Glances
from onnxnas.pipeline.line import Line
from onnxnas.pipeline.run_dir import RunDirectory
from onnxnas.types import Objective, Subnet
from tests.pipeline.test_optimize import settings

OBJECTIVES = [Objective("quality", "%", maximise=True), Objective("macs", "MACs", maximise=False)]


def flags(tiny_files: Path, run: Path, **changes: Any) -> dict[str, Any]:
    body = settings(tiny_files)
    chosen = {**body["search"], "algorithm": "concurrent", "max_trials": 32, "population": 9, **changes}  # type: ignore[dict-item]
    return {**body, "search": chosen, "output": str(run)}


def lines(run: Path) -> list[dict[str, Any]]:
    """The whole ones."""
    return [json.loads(t) for t in (run / "glances.jsonl").read_text().splitlines() if t.endswith("}")]


def proposed(run: Path) -> list[str]:
    return [t.subnet.key() for t in search.read_trials_csv(run / "trials.csv", OBJECTIVES)]


def kept(line: Line) -> Glances:
    return Glances(line.run / "glances.jsonl", lambda subnet: line.glance.loss(subnet))


@pytest.fixture(scope="module")
def finished(tiny_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("glances") / "run"
    runner.begin(config.resolve(flags(tiny_files, run)), last="search")
    return run


def test_candidates_are_glanced_at_once(finished: Path) -> None:
    """Many more than are measured, each once, and quality is predicted from them."""
    keys = [line["subnet"] for line in lines(finished)]
    assert len(set(keys)) == len(keys) >= 64
    told = json.loads((finished / "predictors.json").read_text())["rounds"]
    assert told[0]["objectives"]["quality"]["predictor"] == "transferred gp"
    assert told[0]["fitted_to"] == 8


def test_a_resumed_search_reads_them(
    tiny_files: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after 20 candidates, in the middle of a line: the same candidates as uninterrupted, none seen twice."""
    run = tmp_path / "run"
    body = flags(tiny_files, run)
    short = {**body, "search": {**body["search"], "max_trials": 20}}
    runner.begin(config.resolve(short), last="search")
    (run / "stages" / "search.json").unlink()
    plan = json.loads((run / "stages" / "search.plan.json").read_text())
    (run / "stages" / "search.plan.json").write_text(json.dumps({**plan, "max_trials": 32}))
    before = len(lines(run))
    with (run / "glances.jsonl").open("a") as stream:
        stream.write('{"subnet": "skip=b0;wid')
    asked: list[str] = []
    really = train.Glance.loss

    def watched(self: train.Glance, subnet: Subnet) -> float:
        asked.append(subnet.key())
        return really(self, subnet)

    monkeypatch.setattr(train.Glance, "loss", watched)
    runner.proceed(run, stage="search")
    assert proposed(run) == proposed(finished)
    assert len(asked) == len(lines(run)) - before
    assert not set(asked) & {line["subnet"] for line in lines(run)[:before]}


def test_none_are_asked_for_no_images(tiny_files: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    runner.begin(config.resolve(flags(tiny_files, run, glance_images=0, max_trials=20)), last="search")
    assert not (run / "glances.jsonl").exists()
    assert (run / "trials.csv").is_file()


def test_what_is_no_number_is_remembered(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDirectory(finished)
    line = Line(run, config.load(finished / "config.yaml"), Silent())
    monkeypatch.setattr(train.Glance, "loss", lambda self, subnet: math.inf)
    subnet = Subnet(skip=frozenset({"never seen"}))
    assert math.isnan(kept(line).loss(subnet))
    monkeypatch.setattr(train.Glance, "loss", lambda self, subnet: 1.0)
    assert math.isnan(kept(line).loss(subnet))


def test_whoever_is_first_is_right(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes that look at the same candidate at the same time, and see different figures, keep one."""
    line = Line.at(finished)
    here, there = kept(line), kept(line)
    subnet = Subnet(skip=frozenset({"seen by two"}))

    def other(self: train.Glance, subnet: Subnet) -> float:
        monkeypatch.setattr(train.Glance, "loss", lambda self, subnet: 2.0)
        assert there.loss(subnet) == 2.0
        return 1.0

    monkeypatch.setattr(train.Glance, "loss", other)
    assert here.loss(subnet) == there.loss(subnet) == 2.0
    assert kept(line).loss(subnet) == 2.0
