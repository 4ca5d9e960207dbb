"""Finalists that the user names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from onnxnas import search, train
from onnxnas.cli import main
from onnxnas.pipeline import config as configuration
from onnxnas.pipeline import finalists
from onnxnas.pipeline.events import Silent
from onnxnas.pipeline.line import Line
from onnxnas.pipeline.run_dir import RunDirectory
from onnxnas.types import Objective, Subnet, Trial

OBJECTIVES = [Objective("quality", "%", maximise=True), Objective("macs", "MACs", maximise=False)]


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def test_they_are_finished_and_no_others(run: Path) -> None:
    by_number = {t.number: t.subnet for t in search.read_trials_csv(run / "trials.csv", OBJECTIVES)}
    wanted = [number for number, subnet in by_number.items() if subnet != Subnet()][-2:]
    names = [text for number in wanted for text in ("--trial", str(number))]
    assert main(["finalise", str(run), "--redo", *names]) == 0
    plan = json.loads((run / "stages" / "finalise.plan.json").read_text())
    assert [Subnet.from_json(body) for body in plan["subnets"]] == [by_number[number] for number in wanted]
    body = json.loads((run / "result.json").read_text())
    found = {Subnet.from_json(e["subnet"]).key() for e in [*body["pareto"], *body["dominated"]]}
    assert found == {by_number[number].key() for number in wanted}


def test_deciding_again_needs_redo(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "stages" / "finalise.json").unlink()
    assert main(["finalise", str(run), "--trial", "1"]) != 0
    assert "--redo" in capsys.readouterr().err
    assert not (run / "chosen.json").exists()


def test_a_number_that_is_not_there(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["finalise", str(run), "--redo", "--trial", "1", "--trial", "4711"]) != 0
    said = capsys.readouterr().err
    assert "no successful trial 4711" in " ".join(said.split())
    assert main(["finalise", str(run), "--redo"]) == 0


def test_lucky_candidates_are_found_out(run: Path) -> None:
    """Of candidates whose quality in the search was luck, the one is chosen that is good on all samples."""
    line = Line(RunDirectory(run), configuration.load(run / "config.yaml"), Silent())
    config, data = line.config, line.data
    judge = train.Judge(line.network, data, "val", line.metric, recalibration_images=64, seed=config.seed)
    truth: dict[float, Subnet] = {}
    rng = np.random.default_rng(3)
    while len(truth) < finalists.SHORTLIST:
        subnet = line.space.effective(line.space.random(rng))
        truth[judge.quality(subnet)] = subnet
    trials = [
        # all cost the same, and the search saw them the wrong way round
        Trial(number, subnet, "ok", {"quality": -quality, "macs": 1e6})
        for number, (quality, subnet) in enumerate(truth.items())
    ]
    last = config.finalise.model_copy(update={"finalists": 1, "recovery": 1e6})
    for limit, best in ((data.val.n - 1, max(truth)), (data.val.n, min(truth))):
        search_config = config.search.model_copy(update={"val_limit": limit})
        changed = config.model_copy(update={"finalise": last, "search": search_config})
        (chosen,) = finalists.chosen(Line(line.run, changed, Silent(), data=data), trials, OBJECTIVES)
        assert chosen.subnet == truth[best]
        assert abs(chosen.values["quality"]) == best
