"""The command line: help, JSON, exit codes, one line per error."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

from onnxnas.cli import main
from onnxnas.testing import graphs

COMMANDS = (
    "export", "inspect", "check", "extract", "optimize", "train", "search", "finalise", "resume",
    "report", "bench", "verify", "doctor", "quantize", "tune",
)  # fmt: skip


@pytest.fixture
def model(tmp_path: Path) -> Path:
    onnx.save(graphs.resnet(), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def document(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What is on stdout, which has to be one JSON document and nothing else."""
    body: dict[str, Any] = json.loads(capsys.readouterr().out)
    return body


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"Example: onnxnas {command}" in text


@pytest.mark.parametrize("command", [c for c in COMMANDS if c != "tune"])
def test_every_command_has_the_common_flags(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    main([command, "--help"])
    text = capsys.readouterr().out
    for flag in ("--json", "--seed", "--verbose", "--debug"):
        assert flag in text, flag


def test_no_arguments_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(command in text for command in COMMANDS)


def test_what_is_missing_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "m.onnx", "--runtime", "openvino"]) == 3
    told = capsys.readouterr().err
    assert told.startswith("error: 'tune' is not there yet")
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["inspct"], "Did you mean 'inspect'"),
        (["inspect"], "Missing argument"),
        (["inspect", "none.onnx"], "none.onnx: no such file"),
        (["inspect", "none.onnx", "--shape", "x=1,a"], "expected NAME=1,3,48,192"),
        (["check", "none.onnx", "--samples", "many"], "--samples"),
        (["extract", "none", "--subnet", "max", "-o", "x.onnx"], "none: no such file or directory"),
        (["resume", "none"], "none is not a run directory"),
        (["report", "none"], "none is not a run directory"),
        (["verify", "none"], "none"),
        (["bench", "none.onnx", "--scenario", "online"], "expected single-stream, offline, server"),
        (["optimize", "m.onnx"], "'data' is missing; 'output' is missing"),
        (["optimize", "m.onnx", "--objective", "latancy"], "did you mean 'latency'"),
        (["optimize", "m.onnx", "--precision", "fp32,int4"], "'fp32' or 'int8'"),
        (
            ["quantize", "m.onnx", "--data", "d.npz", "-o", "o.onnx", "--precision", "int4"],
            "expected int8 or mixed",
        ),
        (["optimize", "m.onnx", "--time-budget", "soon"], "'soon' is not a time"),
        (["optimize", "m.onnx", "--config", "none.yaml"], "none.yaml"),
        (["export", "nets.py:f", "--input", "x=3", "-o", "a.onnx"], "nets.py"),
        (["export", "nets.py:f", "--input", "x", "-o", "a.onnx"], "expected name=1,3,32,32"),
    ],
)
def test_bad_arguments_are_one_line_and_exit_2(
    arguments: list[str],
    says: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: ")
    assert told.err.count("\n") == 1
    assert says in told.err
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "none.onnx", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_inspect_json(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(model), "--json"]) == 0
    body = document(capsys)
    assert body.keys() == {
        "schema", "model", "macs", "params", "blocks", "width_groups", "kernels", "frozen", "log10_subnetworks",
        "seconds",
    }  # fmt: skip
    assert main(["inspect", str(model)]) == 0
    text = capsys.readouterr().out
    assert f"{body['macs']:,} MACs" in text
    assert all(group["id"] in text for group in body["width_groups"])


def test_check_json(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(model), "--json", "--samples", "3"]) == 0
    body = document(capsys)
    assert body["ok"] is True
    assert body.keys() == {"schema", "ok", "seconds", "identity", "torch", "subnets", "problems"}
    assert body["subnets"][0].keys() == {"subnet", "macs_ratio", "runs", "max_rel", "error"}


def test_a_check_that_does_not_hold_is_exit_1(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnxnas.pipeline import check

    monkeypatch.setattr(check, "TOLERANCE", -1.0)
    monkeypatch.setattr(check, "ROUNDING", -1.0)
    assert main(["check", str(model), "--json", "--samples", "1"]) == 1
    told = capsys.readouterr()
    assert json.loads(told.out)["ok"] is False
    assert told.err.count("\n") == 1
    assert "max_rel" in told.err


def test_extract(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = model.read_bytes()
    assert (
        main(["extract", str(model), "--subnet", "random:4", "-o", str(tmp_path / "s.onnx"), "--json"]) == 0
    )
    assert document(capsys)["bytes"] == (tmp_path / "s.onnx").stat().st_size
    onnx.checker.check_model(str(tmp_path / "s.onnx"))
    for place in (model, tmp_path):
        assert main(["extract", str(model), "--subnet", "min", "-o", str(place)]) == 2
        assert "would overwrite" in capsys.readouterr().err
    assert model.read_bytes() == before


def test_export(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("nets.py").write_text(
        "from torch import nn\n"
        "def small():\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))\n"
    )
    arguments = ["export", "nets.py:small", "--input", "x=1,3,8,8", "-o", "small.onnx"]
    assert main([*arguments, "--json"]) == 0
    assert document(capsys)["max_rel"] < 1e-4
    made = onnx.load("small.onnx")
    assert "BatchNormalization" in {node.op_type for node in made.graph.node}
    assert made.graph.input[0].name == "x"
    assert made.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    assert main([*arguments[:-1], "other.onnx", "--exporter", "caffe"]) == 2


def test_save_config_then_use_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = tmp_path / "run.yaml"
    flags = ["--data", "none.npz", "-o", str(tmp_path / "run"), "--seed", "5", "--save-config", str(saved)]
    assert main(["optimize", "none.onnx", *flags]) == 2  # there is no such model, but the file is written
    assert "seed: 5" in saved.read_text()
    assert main(["optimize", "none.onnx", "--config", str(saved)]) == 2
    assert "none.onnx: no such file" in capsys.readouterr().err.splitlines()[-1]


def test_bench(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnxnas import measure

    bench = importlib.import_module("onnxnas.measure.bench")  # the package's `bench` is the function
    short = measure.Protocol("tiny", seconds=0.05, min_turns=6)
    monkeypatch.setattr(bench, "resolve_protocol", lambda given: short)
    assert main(["bench", str(model), "--against", str(model), "--json"]) == 0
    body = document(capsys)
    assert body["model"]["p50_ms"]["value"] > 0
    assert body["verdict"] in ("faster", "slower", "not distinguishable")


def test_a_module_runs_and_stdout_stays_clean(model: Path, root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "onnxnas", "inspect", str(model), "--json"],
        capture_output=True, text=True, cwd=root, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0
    assert json.loads(done.stdout)["schema"] == 1
    assert done.stderr == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_exit_4(
    number: signal.Signals, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnxnas.pipeline import inspect

    monkeypatch.setattr(inspect, "inspect", lambda *_, **__: os.kill(os.getpid(), number))
    assert main(["inspect", "any.onnx"]) == 4
    assert capsys.readouterr().err == "error: interrupted\n"


def test_a_defect_is_no_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnxnas.pipeline import inspect

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(inspect, "inspect", broken)
    assert main(["inspect", "any.onnx"]) == 3
    assert (
        capsys.readouterr().err
        == "error: unexpected ZeroDivisionError: oops; add --debug for the traceback\n"
    )
