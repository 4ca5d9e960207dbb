"""Finalists that the user names."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors.numpy
import yaml

from onnxnas import search, train
from onnxnas.cli import main
from onnxnas.errors import DataError
from onnxnas.pipeline import config as configuration
from onnxnas.pipeline import finalists, finetuning
from onnxnas.pipeline.events import Silent
from onnxnas.pipeline.line import Line
from onnxnas.types import Objective, Subnet, Trial
from tests.pipeline import tiny

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
    line = Line.at(run)
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


def test_finalists_taken_further_begin_where_they_were(run: Path, tmp_path: Path) -> None:
    """Two halves of fine-tuning, the second from the first: with a rate of next to nothing, the weights stay."""
    assert main(["finalise", str(run), "--redo"]) == 0
    before = json.loads((run / "result.json").read_text())
    models = {name: (run / "finalists" / name / "model.onnx") for name in ("01", "02")}
    weights = {name: _weights(path) for name, path in models.items()}
    kernels = {name: _kernels(path) for name, path in models.items()}
    answers = {path: path.stat().st_mtime_ns for path in run.glob("lessons/*/*")}
    assert answers
    changes = tmp_path / "finalise.yaml"
    changes.write_text("finalise: {lr: 1.0e-12, samples: train}\n")
    assert main(["finalise", str(run), "--further", "--config", str(changes)]) == 0
    after = json.loads((run / "result.json").read_text())
    assert after["seconds"]["finalise"] > before["seconds"]["finalise"]
    assert {path: path.stat().st_mtime_ns for path in run.glob("lessons/*/*")} == answers  # not asked again
    for name, path in models.items():
        again = _weights(path)
        assert again.keys() == weights[name].keys()
        for key, value in weights[name].items():
            np.testing.assert_allclose(
                again[key], value, rtol=0.05, atol=0.02
            )  # statistics are counted again
        assert _apart(_kernels(path), kernels[name]) < 1e-6
    # from the super-network with that rate, they are others
    assert main(["finalise", str(run), "--redo"]) == 0
    assert all(_apart(_kernels(path), kernels[name]) > 1e-3 for name, path in models.items())
    assert max(_apart(_weights(path), weights[name]) for name, path in models.items()) > 0.05


def test_finalists_of_before_teach_the_next(run: Path, tmp_path: Path) -> None:
    """What is kept of an epoch is the mean of what the original and they say of it; else the original's alone."""
    changes = tmp_path / "finalise.yaml"
    changes.write_text("finalise: {teachers: finalists}\n")
    assert (
        main(["finalise", str(run), "--redo", "--config", str(changes)]) == 0
    )  # there are none of before yet
    alone = _lessons(run)
    models = [run / "baseline.onnx", *sorted(run.glob("finalists/*/model.onnx"))]
    assert len(models) == 3
    line = Line.at(run)
    settings, seed = finetuning.settings(line, 1.0), line.config.seed
    said = []
    for model in models:
        network = finetuning.loaded(line, onnx.load(model))
        told = train.Lessons()
        told.teach(train.teacher_of(network), line.finishing, settings, seed=seed, epoch=0)
        (answers,) = told.of(0, slice(0, len(alone))) or ()
        said.append(answers.numpy())
    apart = min(_mean_apart(said[0], other) for other in said[1:])
    assert _mean_apart(alone, said[0]) < 0.1 * apart
    assert main(["finalise", str(run), "--further", "--config", str(changes)]) == 0
    assert _mean_apart(_lessons(run), np.mean(said, axis=0)) < 0.1 * apart


def _mean_apart(some: np.ndarray, others: np.ndarray) -> float:
    return float(np.abs(some - others).mean())


def _lessons(run: Path) -> np.ndarray:
    (path,) = run.glob("lessons/*/epoch-0000.safetensors")
    return safetensors.numpy.load_file(path)["0"]


def _kernels(model: Path) -> dict[str, np.ndarray]:
    """As they are trained, with no statistics in them."""
    found = _weights(model.with_name(finetuning.TRAINABLE))
    return {name: value for name, value in found.items() if value.ndim > 1}


def _apart(some: dict[str, np.ndarray], others: dict[str, np.ndarray]) -> float:
    assert some.keys() == others.keys() != set()
    return max(float(np.abs(value - others[key]).max()) for key, value in some.items())


def _weights(path: Path) -> dict[str, np.ndarray]:
    return {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


def test_what_cannot_be_taken_further(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*words: str) -> str:
        assert main(["finalise", str(run), *words]) != 0
        return " ".join(capsys.readouterr().err.split())

    whole = (run / "result.json").read_bytes()
    assert "neither to redo" in said("--further", "--redo")
    assert "neither to redo" in said("--further", "--trial", "1")
    assert "--redo" in said("--time-budget", "9s")
    assert "not a time" in said("--time-budget", "soon", "--redo")
    (run / "all.yaml").write_text("finalise: {samples: all}\n")
    assert "got no test samples" in said("--redo", "--config", str(run / "all.yaml"))
    (run / "finalists" / "02" / finetuning.TRAINABLE).unlink()
    assert "02/trainable.onnx is missing" in said("--further")
    assert (run / "result.json").read_bytes() == whole
    assert (run / "stages" / "finalise.json").is_file()
    (run / "stages" / "finalise.json").unlink()
    assert "no finished finalists" in said("--further")


def test_settings_of_this_stage_alone(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = tmp_path / "more.yaml"
    changes.write_text("finalise: {finalists: 1}\nseed: 3\n")
    assert main(["finalise", str(run), "--redo", "--config", str(changes)]) != 0
    assert "got seed, expected a section 'finalise'" in " ".join(capsys.readouterr().err.split())
    changes.write_text("finalise: {finalists: 1}\n")
    assert main(["finalise", str(run), "--redo", "--config", str(changes), "--time-budget", "6s"]) == 0
    kept = configuration.load(run / "config.yaml").finalise
    assert (kept.finalists, kept.max_seconds) == (1, 6.0)
    plan = json.loads((run / "stages" / "finalise.plan.json").read_text())
    assert len(plan["subnets"]) == 1
    assert plan["limits"][0] is not None


def test_validation_samples_may_be_trained_on_in_the_end(run: Path) -> None:
    """Only where others are left to judge by; then finalists see them, and the result says so."""
    line = Line.at(run)
    assert line.data.test is None
    with pytest.raises(DataError, match="got no test samples"):
        line.data.with_validation()
    whole = dataclasses.replace(line.data, test=line.data.val)
    joined = whole.with_validation()
    assert joined.train.n == whole.train.n + whole.val.n
    for name, array in joined.train.x.items():
        np.testing.assert_array_equal(array[: whole.train.n], whole.train.x[name])
        np.testing.assert_array_equal(array[whole.train.n :], whole.val.x[name])
    assert joined.train.y is not None
    assert whole.train.y is not None
    np.testing.assert_array_equal(joined.train.y[: whole.train.n], whole.train.y)
    np.testing.assert_array_equal(joined.train.y[whole.train.n :], whole.val.y)
    assert joined.val is whole.val


def test_a_run_on_all_samples(tiny_files: Path, tmp_path: Path) -> None:
    """It is refused without test samples, before anything is written; with them, an epoch is longer."""
    arrays = dict(np.load(tiny_files / "data.npz"))
    np.savez(tmp_path / "test.npz", x=arrays["x"][:32], y=arrays["y"][:32])
    data = tmp_path / "data.yaml"
    data.write_text(yaml.safe_dump({"train": str(tiny_files / "data.npz"), "test": "test.npz"}))
    for name, file in (("without", tiny_files / "data.npz"), ("with", data)):
        final = {**tiny.SETTINGS["finalise"], "samples": "all", "finalists": 1}
        config = tiny.write_config(tmp_path / "config.yaml", finalise=final)
        words = ["optimize", str(tiny_files / "model.onnx"), "--data", str(file), "-o", str(tmp_path / name)]
        done = main([*words, "--config", str(config)])
        assert (done == 0) == (name == "with")
        assert (tmp_path / name).exists() == (name == "with")
    body = json.loads((tmp_path / "with" / "result.json").read_text())
    assert any("validation samples too" in note for note in body["notes"])
    state = json.loads((tmp_path / "with" / "finalists" / "01" / "state.json").read_text())
    config_ = configuration.load(tmp_path / "with" / "config.yaml")
    whole = len(arrays["x"])  # of which a tenth is for validation
    assert state["progress"]["step"] == int(np.ceil(0.5 * (whole // config_.train.batch_size)))
