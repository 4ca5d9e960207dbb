"""The whole line on a tiny model, and what happens when it is begun again."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import onnxnas
from onnxnas.cli import main
from onnxnas.errors import DataError, Interrupted, ModelError, RunError
from onnxnas.pipeline import config, runner
from onnxnas.pipeline.line import Line
from onnxnas.testing import graphs
from onnxnas.types import Subnet
from tests.pipeline import tiny


def document(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What is on stdout, which has to be one JSON document and nothing else."""
    body: dict[str, Any] = json.loads(capsys.readouterr().out)
    return body


def settings(place: Path, output: str = "run") -> dict[str, object]:
    files = {"model": "model.onnx", "data": "data.npz", "output": output}
    return {**tiny.SETTINGS, **{key: str(place / name) for key, name in files.items()}}


def tree(place: Path) -> dict[str, int]:
    return {str(p.relative_to(place)): p.stat().st_mtime_ns for p in place.rglob("*") if p.is_file()}


def test_the_run_directory(tiny_run: Path) -> None:
    for name in (
        "config.yaml",
        "environment.json",
        "model.onnx",
        "space.json",
        "supernet/weights.safetensors",
        "supernet/log.jsonl",
        "study.db",
        "trials.csv",
        "pareto.csv",
        "pareto/rank_01/model.onnx",
        "pareto/rank_01/run.py",
        "report.html",
        "log.txt",
        "result.json",
    ):
        assert (tiny_run / name).is_file(), name
    assert not list(tiny_run.rglob("*.tmp"))


def test_result_document(tiny_run: Path, tiny_files: Path) -> None:
    body = json.loads((tiny_run / "result.json").read_text())
    assert body["schema"] == 1
    assert body["baseline"]["bytes"] == (tiny_files / "model.onnx").stat().st_size
    # labels are the model's own answers, on the validation split because there is no test split
    assert body["baseline"]["quality"] == 100.0
    assert body["quality_split"] == "val"
    assert any("No test split" in note for note in body["notes"])
    assert body["evaluations"] == tiny.SETTINGS["search"]["max_trials"]
    assert body["seconds"].keys() == {"train", "search", "finalise"}
    assert 0 <= body["supernet_max_quality"] <= 100
    assert 1 <= len(body["pareto"]) <= 2
    for entry in body["pareto"]:
        assert entry["macs"] < body["baseline"]["macs"]
        latency, speedup = entry["latency_ms"], entry["speedup"]
        assert latency["lo"] <= latency["p50"] <= latency["hi"]
        assert speedup["lo"] <= speedup["value"] <= speedup["hi"]
        assert entry["bytes"] == (tiny_run / entry["bundle"] / "model.onnx").stat().st_size
    if body["best"] is not None:
        assert body["best"] == body["pareto"][0]
        assert body["best"]["quality"] >= 99.0
        assert body["best"]["speedup"]["lo"] > 1.0


def test_reported_quality_is_the_bundles(tiny_run: Path, tiny_files: Path) -> None:
    """Counted again by hand, in ONNX Runtime, from the files that are handed off."""
    body = json.loads((tiny_run / "result.json").read_text())
    line = Line.at(tiny_run)
    val = line.data.val
    for entry in body["pareto"]:
        session = onnxruntime.InferenceSession(str(tiny_run / entry["bundle"] / "model.onnx"))
        (scores,) = session.run(None, {"x": val.x["x"]})
        assert entry["quality"] == pytest.approx(100 * np.mean(np.asarray(scores).argmax(1) == val.y))
        model = onnx.load(tiny_run / entry["bundle"] / "model.onnx")
        assert not [n for n in model.graph.node if n.op_type == "BatchNormalization"]  # folded


def test_trials_and_pareto_tables(tiny_run: Path) -> None:
    with (tiny_run / "trials.csv").open() as stream:
        trials = list(csv.DictReader(stream))
    assert len(trials) == tiny.SETTINGS["search"]["max_trials"]
    assert {trial["status"] for trial in trials} == {"ok"}
    assert {"number", "quality", "macs", "params", "skip", "width", "kernel"} <= trials[0].keys()
    body = json.loads((tiny_run / "result.json").read_text())
    with (tiny_run / "pareto.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["bundle"] for row in rows] == [entry["bundle"] for entry in body["pareto"]]


def test_the_search_keeps_to_what_fine_tuning_can_save(tiny_run: Path) -> None:
    """What the maximal one has on validation, less the drop of 1 and a recovery of twice the quality."""
    plan = json.loads((tiny_run / "stages" / "search.plan.json").read_text())
    assert plan["baseline_quality"] == 100.0
    least = plan["maximal_quality"] * (1 - 2) - 1
    assert f"maximise quality [%] >= {least:.6g}".encode() in (tiny_run / "study.db").read_bytes()


def test_a_complete_run_is_not_done_again(tiny_run: Path, tiny_files: Path) -> None:
    before = tree(tiny_run)
    again = runner.begin(config.resolve(settings(tiny_files)))
    assert again == json.loads((tiny_run / "result.json").read_text())
    assert runner.proceed(tiny_run) == again
    changed = {name for name, when in tree(tiny_run).items() if before.get(name) != when}
    assert changed <= {".lock", "log.txt"}


def test_another_configuration_is_refused(tiny_run: Path, tiny_files: Path) -> None:
    before = tree(tiny_run)
    with pytest.raises(RunError, match=r"seed: 0 -> 1.*onnxnas resume"):
        runner.begin(config.resolve({**settings(tiny_files), "seed": 1}))
    assert tree(tiny_run) == before


def test_another_model_is_refused(tiny_run: Path, tiny_files: Path, tmp_path: Path) -> None:
    before = tree(tiny_run)
    other = tiny.write_model(tmp_path / "other.onnx", seed=5)
    with pytest.raises(RunError, match="a run of another model") as caught:
        runner.begin(config.resolve({**settings(tiny_files), "model": str(other)}))
    assert caught.value.exit_code == 2
    assert tree(tiny_run) == before


def test_other_data_are_refused(tiny_run: Path, tiny_files: Path, tmp_path: Path) -> None:
    other = tiny.write_data(tmp_path / "other.npz", tiny_files / "model.onnx", seed=8)
    with pytest.raises(RunError, match="with other data"):
        runner.begin(config.resolve({**settings(tiny_files), "data": str(other)}))


def test_a_damaged_stage_is_noticed(tiny_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(tiny_run, copy)
    content = bytearray((copy / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "model.onnx").write_bytes(content)
    with pytest.raises(RunError, match=r"model\.onnx was changed"):
        onnxnas.extract(copy, "max")
    with pytest.raises(RunError, match=r"model\.onnx was changed"):
        runner.proceed(copy, stage="search", redo=True)


def test_extract_from_a_run(tiny_run: Path) -> None:
    model = onnxnas.extract(tiny_run, "min")
    x = np.zeros((3, 3, graphs.SIZE, graphs.SIZE), np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (trained,) = session.run(None, {"x": x})
    untrained = onnxnas.extract(tiny_run / "model.onnx", "min")
    session = onnxruntime.InferenceSession(untrained.SerializeToString())
    (plain,) = session.run(None, {"x": x})
    assert np.asarray(trained).shape == np.asarray(plain).shape == (3, 10)
    assert not np.allclose(trained, plain)


def test_bad_input_makes_no_directory(tiny_files: Path, tmp_path: Path) -> None:
    good = settings(tiny_files)
    wrong = np.random.default_rng(0).standard_normal((64, 3, 9, 9)).astype(np.float32)
    np.savez(tmp_path / "wrong.npz", x=wrong, y=np.zeros(64, np.int64))
    (tmp_path / "bad.onnx").write_bytes(b"\x89PNG\r\n\x1a\n")
    for change, error in (
        ({"data": str(tmp_path / "wrong.npz")}, DataError),
        ({"model": str(tmp_path / "bad.onnx")}, ModelError),
    ):
        with pytest.raises(error):
            runner.begin(config.resolve({**good, "output": str(tmp_path / "run"), **change}))
        assert not (tmp_path / "run").exists()


def test_a_signal_names_the_command_that_continues(
    tiny_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(line: Line) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(runner._WORK, "prepare", stopped)
    flags = {**settings(tiny_files), "output": str(tmp_path / "my run")}
    with pytest.raises(Interrupted, match=r"onnxnas resume '.*my run'"):
        runner.begin(config.resolve(flags))
    assert (tmp_path / "my run" / "config.yaml").is_file()


def test_python_interface(tiny_files: Path, tiny_run: Path) -> None:
    rest = {k: v for k, v in tiny.SETTINGS.items() if k != "objectives"}
    result = onnxnas.optimize(
        tiny_files / "model.onnx", tiny_files / "data.npz", output=tiny_run, objectives=["macs"], **rest
    )
    assert result.pareto == json.loads((tiny_run / "result.json").read_text())["pareto"]
    assert len(result.to_rows()) == len(result.pareto)
    subnet = Subnet.from_json(result.pareto[0]["subnet"])
    assert subnet != Subnet()


def test_report_and_verify_of_a_run(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tiny_run), "--json"]) == 0
    assert document(capsys)["path"].endswith("report.html")
    assert main(["resume", str(tiny_run)]) == 0
    text = capsys.readouterr().out
    assert "baseline" in text
    assert f"{tiny_run}/report.html" in text
    assert main(["verify", str(tiny_run / "pareto" / "rank_01"), "--json"]) == 0
    assert document(capsys)["ok"] is True


def test_a_bundle_that_was_changed_is_exit_1(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny_run / "pareto" / "rank_01", tmp_path / "b")
    (tmp_path / "b" / "card.md").write_text("better")
    assert main(["verify", str(tmp_path / "b")]) == 1
    assert "card.md was changed" in capsys.readouterr().err
