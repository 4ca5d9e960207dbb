"""Runs that search what numbers a network has together with what it is; `onnxnas quantize`."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxnas import extract, search
from onnxnas.cli import main
from onnxnas.errors import ConfigError
from onnxnas.pipeline.finalists import choose
from onnxnas.pipeline.line import Line
from onnxnas.pipeline.run_dir import RunDirectory
from onnxnas.precision import largest_weight
from onnxnas.testing import graphs
from onnxnas.testing.builder import Builder
from onnxnas.types import Objective, Subnet, Trial
from tests.pipeline import tiny
from tests.precision.test_quantise import decibels, run

SIZES = [Objective("quality", "%", maximise=True), Objective("bytes", "bytes", maximise=False)]
INT8 = {"*": "int8"}


def _words(tiny_files: Path, place: Path, *more: str, **changes: Any) -> list[str]:
    config = tiny.write_config(place / "config.yaml", **{"objectives": ["size"], **changes})
    model, data = tiny_files / "model.onnx", tiny_files / "data.npz"
    return [
        "optimize",
        str(model),
        "--data",
        str(data),
        "-o",
        str(place / "run"),
        "--config",
        str(config),
        *more,
    ]


def kinds(model: bytes | onnx.ModelProto) -> set[str]:
    proto = onnx.load_model_from_string(model) if isinstance(model, bytes) else model
    return {node.op_type for node in proto.graph.node}


@pytest.fixture(scope="module")
def rounded_run(tiny_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One in which both precisions are searched, finished."""
    place = tmp_path_factory.mktemp("rounded")
    more = {"search": {**tiny.SETTINGS["search"], "max_trials": 12}}
    assert main(_words(tiny_files, place, "--precision", "fp32,int8", **more)) == 0
    return place / "run"


def test_both_are_searched(rounded_run: Path) -> None:
    trials = search.read_trials_csv(rounded_run / "trials.csv", SIZES)
    assert all(trial.status == "ok" for trial in trials), [trial.error for trial in trials]
    assert {json.dumps(trial.subnet.precision) for trial in trials} == {"{}", json.dumps(INT8)}


def test_the_original_in_8_bits_has_the_weights_of_the_original(rounded_run: Path) -> None:
    """Not those that training with shared weights gave the largest network; as a finalist it is left as it is."""
    trials = search.read_trials_csv(rounded_run / "trials.csv", SIZES)
    floats, rounded = (next(t for t in trials if t.subnet == Subnet(precision=p)) for p in ({}, INT8))
    assert rounded.values["bytes"] < 0.7 * floats.values["bytes"]
    line = Line.at(rounded_run)
    x = {"x": line.data.val.x["x"]}
    original, largest = (run(m, x)[0] for m in (line.baseline, extract(rounded_run).SerializeToString()))
    made = run(extract(rounded_run, rounded.subnet).SerializeToString(), x)[0]
    assert decibels(made, original) > 15
    assert decibels(made, original) > decibels(largest, original) + 3
    assert main(["finalise", str(rounded_run), "--redo", "--trial", str(rounded.number)]) == 0
    (entry,) = json.loads((rounded_run / "result.json").read_text())["pareto"]
    kept = (rounded_run / "finalists" / "01" / "model.onnx").read_bytes()
    np.testing.assert_allclose(run(kept, x)[0], original, atol=1e-4)
    assert run((rounded_run / entry["bundle"] / "model.onnx").read_bytes(), x)[0].tobytes() == made.tobytes()


def test_a_candidate_in_8_bits_is_judged_by_its_file(rounded_run: Path) -> None:
    """Quality as counted by hand from what `extract` writes; `val_limit` samples of those held out."""
    trials = search.read_trials_csv(rounded_run / "trials.csv", SIZES)
    trial = next(t for t in trials if t.subnet.precision and t.subnet.structure != Subnet())
    line = Line.at(rounded_run)
    limit = line.config.search.val_limit
    x, y = line.data.val.x["x"][:limit], line.data.val.y
    assert y is not None
    model = extract(rounded_run, trial.subnet)
    assert "QuantizeLinear" in kinds(model)
    right = (run(model.SerializeToString(), {"x": x})[0].argmax(1) == y[:limit]).mean()
    assert trial.values["quality"] == pytest.approx(100 * right, abs=100 / limit + 1e-6)


def test_what_is_handed_over_has_8_bits(rounded_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trials = search.read_trials_csv(rounded_run / "trials.csv", SIZES)
    rounded = next(t for t in trials if t.subnet.precision and t.subnet.structure != Subnet())
    assert main(["finalise", str(rounded_run), "--redo", "--trial", str(rounded.number)]) == 0
    (entry,) = json.loads((rounded_run / "result.json").read_text())["pareto"]
    assert Subnet.from_json(entry["subnet"]) == rounded.subnet
    bundle = rounded_run / entry["bundle"]
    made = (bundle / "model.onnx").read_bytes()
    assert "QuantizeLinear" in kinds(made)
    assert entry["bytes"] == len(made)
    assert "int8" in (bundle / "card.md").read_text()
    assert "int8" in (rounded_run / "report.html").read_text()
    x = Line.at(rounded_run).data.val.x["x"]
    exact = (rounded_run / "finalists" / "01" / "model.onnx").read_bytes()
    assert "QuantizeLinear" not in kinds(exact)
    assert decibels(run(made, {"x": x})[0], run(exact, {"x": x})[0]) > 15
    capsys.readouterr()
    assert main(["verify", str(bundle), "--json"]) == 0
    numbers = json.loads(capsys.readouterr().out)["numbers"]
    assert numbers["max_rel"] <= numbers["tolerance"] == 0.05


def test_one_structure_in_both_precisions_is_fine_tuned_once(rounded_run: Path, tmp_path: Path) -> None:
    """Also when taken further. The original in 8 bits has its own weights, and not those of the largest sub-network."""
    run_ = Path(shutil.copytree(rounded_run, tmp_path / "run"))
    trials = search.read_trials_csv(run_ / "trials.csv", SIZES)
    others = [t for t in trials if t.subnet.structure != Subnet()]
    smaller = max(others, key=lambda t: t.values["bytes"]).subnet.structure
    wanted = [smaller.rounded(INT8), smaller, Subnet(precision=INT8), Subnet()]
    RunDirectory(run_).forget("finalise")
    chosen = {"schema": 1, "subnets": [subnet.to_json() for subnet in wanted], "seconds": 0.0}
    (run_ / "chosen.json").write_text(json.dumps(chosen))
    x = Line.at(run_).data.val.x["x"]
    for words in ((), ("--further",)):
        assert main(["finalise", str(run_), *words]) == 0
        body = json.loads((run_ / "result.json").read_text())
        found = {Subnet.from_json(e["subnet"]).key(): e for e in [*body["pareto"], *body["dominated"]]}
        rounded, floats, untouched, largest = (found[subnet.key()] for subnet in wanted)
        place = run_ / "finalists"
        assert sorted(path.name for path in place.iterdir()) == ["01", "03", "04"]
        assert floats["val_quality"] == json.loads((place / "01" / "done.json").read_text())["val_quality"]
        assert floats["bytes"] == (place / "01" / "model.onnx").stat().st_size
        assert rounded["bytes"] < min(floats["bytes"], untouched["bytes"]) < largest["bytes"]
        made = (run_ / rounded["bundle"] / "model.onnx").read_bytes()  # nothing is smaller: it has a bundle
        assert "QuantizeLinear" in kinds(made)
        tuned = run((place / "01" / "model.onnx").read_bytes(), {"x": x})[0]
        assert decibels(run(made, {"x": x})[0], tuned) > 15


def test_with_int8_alone_all_candidates_have_it(tiny_files: Path, tmp_path: Path) -> None:
    assert main(_words(tiny_files, tmp_path, "--precision", "int8")) == 0
    trials = search.read_trials_csv(tmp_path / "run" / "trials.csv", SIZES)
    assert {json.dumps(t.subnet.precision) for t in trials} == {json.dumps(INT8)}
    body = json.loads((tmp_path / "run" / "result.json").read_text())
    assert body["baseline"]["bytes"] == (tiny_files / "model.onnx").stat().st_size


def test_stage_by_stage_it_is_the_same(tiny_files: Path, tmp_path: Path) -> None:
    """The ranges of a candidate come of the same samples in any process."""
    tables = []
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
        words = _words(tiny_files, tmp_path / name, precision=["fp32", "int8"])
        if name == "parts":
            assert main(["train", *words[1:]]) == 0
            words = ["search", str(tmp_path / name / "run")]
        assert main(words) == 0
        with (tmp_path / name / "run" / "trials.csv").open() as file:
            tables.append([{**row, "seconds": ""} for row in csv.DictReader(file)])
    assert tables[0] == tables[1]


def test_the_original_in_8_bits_may_be_a_finalist() -> None:
    trials = [
        Trial(0, Subnet(), "ok", {"quality": 90.0, "bytes": 400.0}),
        Trial(1, Subnet(precision=INT8), "ok", {"quality": 89.9, "bytes": 100.0}),
        Trial(2, Subnet(width={"g": 4}), "ok", {"quality": 70.0, "bytes": 200.0}),
    ]
    assert [t.number for t in choose(trials, SIZES, 1, 80.0)] == [1]


def test_extract_of_a_file_has_no_samples(tiny_files: Path) -> None:
    with pytest.raises(ConfigError, match="takes data"):
        extract(tiny_files / "model.onnx", Subnet(precision=INT8))


@pytest.mark.parametrize(
    ("precision", "said"),
    [({"nowhere": "int8"}, "no such node"), ({"*": "int4"}, "use fp32 or int8")],
)
def test_precision_that_is_not_there(tiny_files: Path, precision: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        extract(tiny_files / "model.onnx", Subnet(precision=precision))


def test_a_precision_that_is_not_known(
    tiny_files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(_words(tiny_files, tmp_path, "--precision", "int4")) == 2
    assert "precision" in capsys.readouterr().err


def quantize(tiny_files: Path, output: Path, *more: str) -> int:
    model, data = tiny_files / "model.onnx", tiny_files / "data.npz"
    return main(["quantize", str(model), "--data", str(data), "-o", str(output), "--json", *more])


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_quantize(tiny_files: Path, tmp_path: Path, runtime: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "small.onnx"
    assert quantize(tiny_files, out, "--runtime", runtime) == 0
    body = json.loads(capsys.readouterr().out)
    model = tiny_files / "model.onnx"
    assert body["precision"] == INT8
    assert body["layers"]["int8"] == body["layers"]["of"] > 3
    assert body["model"]["bytes"] == out.stat().st_size < model.stat().st_size == body["baseline"]["bytes"]
    data = np.load(tiny_files / "data.npz")
    exact, rounded = (run(path.read_bytes(), {"x": data["x"]})[0] for path in (model, out))
    assert decibels(rounded, exact) > 15
    assert body["baseline"]["quality"] == 100
    assert body["model"]["quality"] > 70
    if runtime == "onnxruntime":
        assert any("have 7 here" in note for note in body["notes"]) == (largest_weight(run) < 127)
    assert main(["bench", str(out), "--against", str(model), "--json"]) == 0


def test_mixed_leaves_what_is_sensitive_in_floats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Between two layers one channel is a thousand times the others: neither may be rounded, all others may."""
    b = Builder(0)
    x = b.conv(b.input("x", (3, graphs.SIZE, graphs.SIZE)), 8, name="first")
    for name in ("second", "third", "fourth"):
        x = b.conv(b.add("Relu", x), 8, name=name)
    model = tmp_path / "model.onnx"
    onnx.save(tiny.spread(_with_a_loud_channel(b.finish(b.head(x)), "second", "third")), model)
    tiny.write_data(tmp_path / "data.npz", model)
    assert quantize(tmp_path, tmp_path / "all.onnx", "--precision", "int8") == 0
    whole = json.loads(capsys.readouterr().out)
    assert quantize(tmp_path, tmp_path / "mixed.onnx", "--precision", "mixed", "--max-drop", "15") == 0
    mixed = json.loads(capsys.readouterr().out)
    assert whole["model"]["quality"] < 85 <= mixed["model"]["quality"]
    kept = [name for name in mixed["precision"] if name != "*"]
    assert sorted(kept) == ["/second/Conv", "/third/Conv"]
    assert mixed["layers"] == {"int8": 3, "of": 5}


def _with_a_loud_channel(proto: onnx.ModelProto, before: str, after: str) -> onnx.ModelProto:
    """The same function: a channel of one convolution times a thousand, what reads it divided by as much."""
    nodes = {node.name.split("/")[-2]: node for node in proto.graph.node if node.op_type == "Conv"}
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}

    def scale(name: str, where: Any, factor: float) -> None:
        values = numpy_helper.to_array(weights[name]).copy()
        values[where] *= factor
        weights[name].CopyFrom(numpy_helper.from_array(values, name))

    for name in nodes[before].input[1:]:
        scale(name, 0, 1000.0)
    scale(nodes[after].input[1], (slice(None), 0), 0.001)
    return proto


def test_nothing_to_round(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    b = Builder(0)
    x = b.input("x", (3, graphs.SIZE, graphs.SIZE))
    onnx.save(b.finish(b.add("Softmax", b.add("Flatten", x, shape=(192,)))), tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", x=np.zeros((64, 3, graphs.SIZE, graphs.SIZE), np.float32))
    assert quantize(tmp_path, tmp_path / "out.onnx") == 2
    assert "nothing can be computed in 8 bits" in capsys.readouterr().err
    assert not (tmp_path / "out.onnx").exists()


def test_never_over_the_model_itself(tiny_files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert quantize(tiny_files, tiny_files / "model.onnx") == 2
    assert "would overwrite" in capsys.readouterr().err
