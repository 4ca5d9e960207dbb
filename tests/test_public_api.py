"""What users and third parties rely on. A change of this file is a change of the interface: CHANGELOG.md says so."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import onnxnas
from onnxnas import errors, types

SURFACE = {
    "onnxnas": {"__version__", "extract", "inspect", "optimize"},
    "rewriters": {
        "Bypass", "Canonical", "CropKernel", "Edit", "FoldBatchNorm", "InsertBatchNorm", "Keep", "Refusal",
        "ReplaceConstant", "Rewriter", "Rewritten", "SetAttribute", "SetInitializer", "apply", "canonicalise",
    },
    "onnxnas.measure": {
        "Latency", "Measurer", "Runtime", "Session", "Target", "bench", "doctor", "environment", "get_runtime",
    },
    "onnxnas.search": {"Algorithm", "Evaluator", "hypervolume", "pareto", "run", "write_trials_csv"},
    "onnxnas.train": {"Strategy", "TrainResult", "TrainSettings", "evaluate", "finetune", "train"},
    "onnxnas.space": {"Dimension", "SearchSpace", "build", "from_json"},
    "onnxnas.analysis": {"Analysis", "analyse"},
    "onnxnas.ops": {"OpSpec", "register", "resolve"},
    "onnxnas.handoff.bundle": {"CardInfo", "Samples", "VerifyReport", "verify", "write"},
}  # fmt: skip

COMMANDS = {
    "export", "inspect", "check", "extract", "optimize", "train", "search", "finalise", "quantize", "tune",
    "bench", "report", "verify", "doctor", "resume",
}  # fmt: skip

OPTIMIZE = {
    "--data", "--preset", "--time-budget", "--max-drop", "--objective", "--runtime", "--threads", "--batch",
    "--precision", "--elastic", "--warm-start", "--device", "--config", "--save-config", "--json", "--seed",
    "--debug", "-o", "-v",
}  # fmt: skip


@pytest.mark.parametrize("module", SURFACE)
def test_names(module: str) -> None:
    found = import_module(module)
    missing = {name for name in SURFACE[module] if not hasattr(found, name)}
    assert not missing
    assert SURFACE[module] <= set(found.__all__)


def test_top_level_functions() -> None:
    assert set(onnxnas.__all__) == SURFACE["onnxnas"]
    words = inspect.signature(onnxnas.optimize).parameters
    assert list(words)[:2] == ["model", "data"]
    assert {"objectives", "constraints", "runtime"} <= words.keys()
    assert all(words[name].kind is inspect.Parameter.KEYWORD_ONLY for name in ("objectives", "runtime"))
    assert next(iter(inspect.signature(onnxnas.inspect).parameters)) == "model"
    assert list(inspect.signature(onnxnas.extract).parameters)[:2] == ["model", "subnet"]


def test_commands() -> None:
    from typer.main import get_command

    from onnxnas.cli.app import app

    commands = get_command(app).commands  # type: ignore[attr-defined]
    assert set(commands) == COMMANDS
    flags = {flag for parameter in commands["optimize"].params for flag in parameter.opts}
    assert flags >= OPTIMIZE
    for name in COMMANDS - {"tune"}:
        own = {flag for parameter in commands[name].params for flag in parameter.opts}
        assert {"--json", "--debug", "-v"} <= own, name
        assert f"onnxnas {name} " in (commands[name].help or "") + " ", name


def test_modules_of_the_handoff_are_there_when_asked_for() -> None:
    code = (
        "import sys, onnxnas.handoff as h; assert 'plotly' not in sys.modules; h.bundle.write; h.report.write"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=Path(__file__).parents[1])


def test_exit_codes() -> None:
    codes = {
        "OnnxnasError": 1, "CheckFailed": 1, "InputError": 2, "ModelError": 2, "DataError": 2, "ConfigError": 2,
        "RunError": 2, "EnvironmentProblem": 3, "Interrupted": 4,
    }  # fmt: skip
    found = {name: cls.exit_code for name, cls in vars(errors).items() if isinstance(cls, type)}
    assert found == codes


def test_the_files_of_a_subnetwork_keep_their_keys() -> None:
    body = {"skip": ["b3"], "width": {"g4": 48}, "kernel": {"k0": [3, 3]}, "precision": {"node": "int8"}}
    subnet = types.Subnet.from_json({"model_sha256": "ab", **body})
    assert subnet.to_json() == body
    served = {**body, "serving": {"threads": 2}}  # written only where there is something to say
    assert types.Subnet.from_json(served).to_json() == served
    assert {f.name for f in dataclasses.fields(types.Subnet)} == served.keys()
