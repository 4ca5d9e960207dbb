"""External data stays inside the model's directory; whatever else is asked for is refused unread."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto

from onnxnas import graph
from onnxnas.errors import ModelError

Refuse = Callable[[ModelProto], str]
CANARY = bytes(432)


@pytest.fixture
def outside(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file outside the model's directory with enough bytes for the tensor; opening it is an error."""
    path = tmp_path_factory.mktemp("outside") / "canary"
    path.write_bytes(CANARY)
    real = os.open

    def watched(*args: object, **options: object) -> int:
        descriptor: int = real(*args, **options)  # type: ignore[arg-type]
        assert os.fstat(descriptor).st_ino != path.stat().st_ino, "the file outside was opened"
        return descriptor

    monkeypatch.setattr(os, "open", watched)
    return path


def refer(model: ModelProto, **entries: str) -> ModelProto:
    """Make the only weight external."""
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.append(onnx.StringStringEntryProto(key=key, value=value))
    return model


def test_reads_data_beside_the_model(small: ModelProto, tmp_path: Path) -> None:
    weight = onnx.numpy_helper.to_array(small.graph.initializer[0])
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "w.bin").write_bytes(b"12345678" + weight.tobytes())
    path = tmp_path / "model.onnx"
    path.write_bytes(refer(small, location="sub/w.bin", offset="8", length="432").SerializeToString())
    loaded = graph.load(path)
    assert np.array_equal(loaded.initializers["w"], weight)
    digest = loaded.digest
    (tmp_path / "sub" / "w.bin").write_bytes(b"12345678" + (weight + 1).tobytes())
    assert graph.load(path).digest != digest  # the data is part of what was loaded


def test_relative_model_path(small: ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "w.bin").write_bytes(CANARY)
    (tmp_path / "model.onnx").write_bytes(refer(small, location="w.bin").SerializeToString())
    monkeypatch.chdir(tmp_path)
    assert not graph.load("model.onnx").initializers["w"].any()


def test_parent_directory(small: ModelProto, refuse: Refuse, outside: Path, tmp_path: Path) -> None:
    location = os.path.relpath(outside, tmp_path)
    assert "outside the model's directory" in refuse(refer(small, location=location))


def test_parent_directory_in_the_middle(small: ModelProto, refuse: Refuse, outside: Path) -> None:
    message = refuse(refer(small, location=f"./a/../../{outside.parent.name}/canary"))
    assert "outside the model's directory" in message


def test_absolute_path(small: ModelProto, refuse: Refuse, outside: Path) -> None:
    assert "outside the model's directory" in refuse(refer(small, location=str(outside)))


def test_symbolic_link(small: ModelProto, refuse: Refuse, outside: Path, tmp_path: Path) -> None:
    (tmp_path / "w.bin").symlink_to(outside)
    message = refuse(refer(small, location="w.bin"))
    assert "symbolic link" in message
    assert "cp -L" in message


def test_symbolic_link_to_a_directory(
    small: ModelProto, refuse: Refuse, outside: Path, tmp_path: Path
) -> None:
    (tmp_path / "sub").symlink_to(outside.parent)
    assert "symbolic link" in refuse(refer(small, location="sub/canary"))


def test_hard_link(small: ModelProto, refuse: Refuse, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(CANARY)
    os.link(tmp_path / "elsewhere", tmp_path / "w.bin")
    assert "hard link" in refuse(refer(small, location="w.bin"))


def test_fifo(small: ModelProto, refuse: Refuse, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "w.bin")
    assert "regular file" in refuse(refer(small, location="w.bin"))


def test_directory(small: ModelProto, refuse: Refuse, tmp_path: Path) -> None:
    (tmp_path / "w.bin").mkdir()
    assert "regular file" in refuse(refer(small, location="w.bin"))


def test_missing(small: ModelProto, refuse: Refuse) -> None:
    assert "missing" in refuse(refer(small, location="w.bin"))


@pytest.mark.parametrize(
    ("entries", "word"),
    [
        ({"offset": "1"}, "432 bytes"),
        ({"offset": "1000000"}, "432 bytes"),
        ({"length": str(2**60)}, "needs 432"),
        ({"length": "431"}, "needs 432"),
        ({"offset": "-8"}, "'-8'"),
        ({"offset": "9" * 50}, "not a size"),
        ({"length": "0x1b0"}, "not a size"),
        ({"__class__": "x"}, "__class__"),
        ({"basepath": "/"}, "basepath"),
    ],
)
def test_entries(
    small: ModelProto, refuse: Refuse, tmp_path: Path, entries: dict[str, str], word: str
) -> None:
    (tmp_path / "w.bin").write_bytes(CANARY)
    assert word in refuse(refer(small, location="w.bin", **entries))


@pytest.mark.parametrize("location", ["", ".", "a\\..\\b", "w\0.bin", "/dev/zero"])
def test_strange_locations(small: ModelProto, refuse: Refuse, location: str) -> None:
    assert "external data" in refuse(refer(small, location=location))


def test_more_than_allowed(small: ModelProto, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(CANARY)
    path = tmp_path / "model.onnx"
    path.write_bytes(refer(small, location="w.bin").SerializeToString())
    with pytest.raises(ModelError, match="more than 400 bytes"):
        graph.load(path, limits=graph.Limits(external_bytes=400))


def test_protobuf_has_no_directory(small: ModelProto) -> None:
    with pytest.raises(ModelError, match="no directory"):
        graph.load(refer(small, location="w.bin"))
