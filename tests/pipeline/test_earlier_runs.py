"""Runs that build on others, a user's own objective, and limits."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest

from onnxnas.cli import main
from onnxnas.errors import ConfigError, RunError
from onnxnas.handoff import report
from onnxnas.pipeline import config, runner
from tests.pipeline import tiny
from tests.pipeline.test_optimize import settings


def convolutions(model: onnx.ModelProto) -> int:
    """An objective: how many convolutions are left."""
    return sum(node.op_type == "Conv" for node in model.graph.node)


convolutions.unit = "nodes"  # type: ignore[attr-defined]
OWN = "tests.pipeline.test_earlier_runs:convolutions"


def with_search(place: Path, output: str, **search: Any) -> dict[str, Any]:
    body = {**settings(place, output), "objectives": ["macs", "size", OWN], "limits": {OWN: 4}}
    return {**body, "search": {**tiny.SETTINGS["search"], **search}}


def searched(run: Path) -> list[dict[str, str]]:
    with (run / "trials.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def earlier(tiny_files: Path) -> Path:
    """A run with enough candidates to learn from."""
    flags = with_search(tiny_files, "earlier", max_trials=48, population=12)
    runner.begin(config.resolve(flags), last="search")
    return tiny_files / "earlier"


def test_an_own_objective_is_searched_and_its_limit_kept(tiny_files: Path, earlier: Path) -> None:
    rows = searched(earlier)
    assert {int(float(row["convolutions"])) for row in rows} > {4}
    body = runner.proceed(earlier)
    assert body["pareto"]
    for entry in body["pareto"]:
        model = onnx.load(earlier / entry["bundle"] / "model.onnx")
        assert entry["figures"] == {"convolutions": convolutions(model)}
        assert convolutions(model) <= 4


def test_a_run_learns_from_another_and_needs_it_no_more(tiny_files: Path, earlier: Path) -> None:
    copy = tiny_files / "copy"
    shutil.copytree(earlier, copy)
    more = {"warm_start": [str(copy)], "reduce_from": [str(copy)], "algorithm": "concurrent"}
    flags = with_search(tiny_files, "later", max_trials=24, **more)
    runner.begin(config.resolve(flags), last="search")
    run = tiny_files / "later"
    said = (run / "log.txt").read_text()
    assert "warm start from 48 candidates" in said
    assert "space reduced from 10^" in said
    first = [(row["skip"], row["width"]) for row in searched(run)]
    seen = {(row["skip"], row["width"]) for row in searched(copy)}
    assert len(first) == 24
    assert seen & set(first)  # what was good there is measured here
    rounds = json.loads((run / "predictors.json").read_text())["rounds"]
    assert [name["predictor"] for name in rounds[0]["objectives"].values()] == ["prior"] * 4
    assert rounds[-1]["objectives"]["macs"]["spearman"] > 0.9
    assert "convolutions" in report.write(run).read_text()
    shutil.rmtree(copy)
    runner.proceed(run, stage="search")
    (run / "stages" / "search.json").unlink()
    runner.proceed(run, stage="search")  # replayed
    assert [(row["skip"], row["width"]) for row in searched(run)] == first


def test_runs_that_cannot_be_built_on(
    tiny_files: Path, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.write_model(tmp_path / "model.onnx", seed=3)
    tiny.write_data(tmp_path / "data.npz", tmp_path / "model.onnx")
    other = settings(tmp_path)
    with pytest.raises(RunError, match="is a run of another model"):
        runner.begin(config.resolve({**other, "search": {"warm_start": [str(tiny_run)]}}))
    fresh = settings(tiny_files, "never")
    with pytest.raises(RunError, match="not a run directory"):
        runner.begin(config.resolve({**fresh, "search": {"reduce_from": [str(tmp_path)]}}))
    with pytest.raises(ConfigError, match="has no 'nothing'"):
        runner.begin(config.resolve({**fresh, "objectives": ["tests.pipeline.test_earlier_runs:nothing"]}))
    model, data = str(tiny_files / "model.onnx"), str(tiny_files / "data.npz")
    line = ["optimize", model, "--data", data, "-o", str(tiny_files / "never")]
    assert main([*line, "--limit", "latency"]) == 2
    assert main([*line, "--limit", "size=3"]) == 2
    assert main([*line, "--warm-start", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "expected OBJECTIVE=VALUE" in said
    assert "'size' is not an objective of this run, which has quality, latency, macs" in said
    assert f"{tmp_path} is not a run directory" in said
    assert not (tiny_files / "never").exists()
