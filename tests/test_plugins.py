"""Objects named by the user."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from onnxnas.errors import ConfigError
from onnxnas.plugins import is_reference, load_object


def test_modules_and_files(tmp_path: Path) -> None:
    assert load_object("math:pi") == pytest.approx(3.14159265)
    (tmp_path / "neighbour.py").write_text("value = 41\n")
    (tmp_path / "mine.py").write_text("import neighbour\nvalue = neighbour.value + 1\n")
    before = list(sys.path)
    assert load_object(f"{tmp_path}/mine.py:value") == 42
    assert sys.path == before


def test_references() -> None:
    assert is_reference("a.b:c")
    assert is_reference("/x/y.py:function")
    assert not any(map(is_reference, ("a.b", "a:", ":c", "C:/data", "file.npz")))


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("plain", "expected module:name"),
        ("math:nothing", "has no 'nothing'"),
        ("no_such_module_here:x", "importing no_such_module_here failed"),
        ("absent.py:x", "no such file"),
        ("BROKEN:x", "ZeroDivisionError"),
    ],
)
def test_refusals(tmp_path: Path, spec: str, says: str) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n")
    with pytest.raises(ConfigError, match=says):
        load_object(spec.replace("BROKEN", f"{tmp_path}/broken.py"), what="metric")
