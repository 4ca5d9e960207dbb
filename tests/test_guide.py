"""The programs of the guide run as they are printed."""

from __future__ import annotations

import re
from pathlib import Path

import onnx
import onnxruntime
import pytest

from onnxnas.testing import graphs


def test_the_programs_of_the_guide(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    programs = re.findall(r"```python\n(.*?)```", (root / "docs" / "guide.md").read_text(), re.DOTALL)
    assert len(programs) == 2
    onnx.save(graphs.resnet(), tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    for program in programs:
        exec(compile(program, "guide.md", "exec"), {})
    size = {name: len((tmp_path / name).read_bytes()) for name in ("model.onnx", "smaller.onnx")}
    assert size["smaller.onnx"] < size["model.onnx"]
    onnxruntime.InferenceSession(tmp_path / "smaller.onnx")
    assert "3 blocks can be skipped" in capsys.readouterr().out
