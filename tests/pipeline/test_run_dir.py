"""The run directory: lock, markers, damage."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from onnxnas.errors import EnvironmentProblem, RunError
from onnxnas.pipeline import files
from onnxnas.pipeline.run_dir import RunDirectory

HOLD = """
import sys, time
from onnxnas.pipeline.run_dir import RunDirectory
with RunDirectory(sys.argv[1]).locked():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_owner_is_told_the_first_ones_process(tmp_path: Path, root: Path) -> None:
    place = tmp_path / "run"
    owner = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(place)], stdout=subprocess.PIPE, text=True, cwd=root
    )
    try:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "held\n"
        with pytest.raises(EnvironmentProblem, match=f"process {owner.pid};"), RunDirectory(place).locked():
            pass
    finally:
        os.kill(owner.pid, signal.SIGKILL)
        owner.communicate()
    deadline = time.monotonic() + 5
    with RunDirectory(place).locked():  # a dead owner holds nothing
        assert time.monotonic() < deadline
    assert (place / ".lock").read_text().strip() == str(os.getpid())


def test_the_lock_is_released(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    with run.locked():
        pass
    with run.locked():
        pass


def test_foreign_directories_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match="is a file"), RunDirectory(tmp_path / "file").locked():
        pass
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "thesis.tex").write_text("mine")
    with pytest.raises(RunError, match="no run"), RunDirectory(tmp_path / "dir").locked():
        pass
    assert [p.name for p in (tmp_path / "dir").iterdir()] == ["thesis.tex"]


def test_a_damaged_output_is_noticed_and_named(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"abc")
    run.finish("prepare", 1.0, ("model.onnx",), note=5)
    assert run.verify("prepare")["note"] == 5
    (tmp_path / "model.onnx").write_bytes(b"abd")
    with pytest.raises(RunError, match=r"model\.onnx was changed"):
        run.verify("prepare")
    (tmp_path / "model.onnx").unlink()
    with pytest.raises(RunError, match=r"model\.onnx is missing"):
        run.verify("prepare")
    with pytest.raises(RunError, match="'train' is not complete"):
        run.verify("train")


def test_forgetting_a_stage_forgets_what_follows(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    for stage in ("prepare", "train", "search"):
        run.decide(stage, {"n": 1})
        run.finish(stage, 1.0, ())
    (tmp_path / "supernet").mkdir()
    (tmp_path / "supernet" / "w").write_text("x")
    (tmp_path / "trials.csv").write_text("x")
    run.forget("search")
    assert run.marker("train") is not None
    assert run.plan("train") == {"n": 1}
    assert run.marker("search") is None
    assert run.plan("search") is None
    assert (tmp_path / "supernet").exists()
    assert not (tmp_path / "trials.csv").exists()
    run.forget("train")
    assert not (tmp_path / "supernet").exists()


def test_files_are_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.json"
    files.write_json(target, {"old": 1})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EnvironmentProblem, match=r"a\.json: No space left"):
        files.write_json(target, {"new": 2})
    assert files.read_json(target) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_json_is_plain(tmp_path: Path) -> None:
    import numpy as np

    body = {
        "nan": float("nan"),
        "inf": np.float32("inf"),
        "set": frozenset({"b", "a"}),
        "n": np.int64(3),
        "t": (1, 2),
    }
    files.write_json(tmp_path / "a.json", body)
    assert files.read_json(tmp_path / "a.json") == {
        "nan": None,
        "inf": None,
        "set": ["a", "b"],
        "n": 3,
        "t": [1, 2],
    }


def test_a_torn_document_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": ')
    with pytest.raises(RunError, match=r"a\.json cannot be read"):
        files.read_json(tmp_path / "a.json")
