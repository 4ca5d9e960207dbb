"""Models are written whole or not at all, beside large weights where they must be."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from onnxnas import graph
from onnxnas.errors import EnvironmentProblem, ModelError
from onnxnas.testing import graphs
from rewriters.edits import SetAttribute


def test_round_trip(tmp_path: Path) -> None:
    model = graphs.resnet()
    path = graph.save(model, tmp_path / "m.onnx")
    assert path.read_bytes() == model.SerializeToString()
    assert os.listdir(tmp_path) == ["m.onnx"]


def test_external_data_round_trip(tmp_path: Path) -> None:
    model = graphs.vgg()
    graph.save(model, tmp_path / "m.onnx", largest=4000)
    assert sorted(os.listdir(tmp_path)) == ["m.onnx", "m.onnx.data"]
    assert (tmp_path / "m.onnx").stat().st_size < 4000
    back = onnx.load(tmp_path / "m.onnx")  # onnx's own reader
    for ours, theirs in zip(model.graph.initializer, back.graph.initializer, strict=True):
        assert ours.name == theirs.name
        assert np.array_equal(onnx.numpy_helper.to_array(ours), onnx.numpy_helper.to_array(theirs))
    loaded, whole = graph.load(tmp_path / "m.onnx"), graph.load(model)
    assert loaded.model.graph == whole.model.graph
    assert not any(t.external_data for t in loaded.model.graph.initializer)


def test_old_file_survives_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EnvironmentProblem, match="No space left"):
        graph.save(graphs.vgg(), path)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["m.onnx"]


def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="cannot be written"):
        graph.save(graphs.vgg(), tmp_path / "none" / "m.onnx")


def test_permissions_are_ordinary(tmp_path: Path) -> None:
    path = graph.save(graphs.vgg(), tmp_path / "m.onnx")
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    assert path.stat().st_mode == plain.stat().st_mode


def test_rewrite_sets_weights(small: ModelProto) -> None:
    loaded = graph.load(small)
    value = np.full((4, 3, 3, 3), 2, np.float32)
    model = graph.rewrite(loaded, [], {"w": value})
    assert np.array_equal(onnx.numpy_helper.to_array(model.graph.initializer[0]), value)
    assert not np.array_equal(loaded.initializers["w"], value)


def test_rewrite_refusal_is_an_error(small: ModelProto) -> None:
    with pytest.raises(ModelError, match="ghost"):
        graph.rewrite(graph.load(small), [SetAttribute("ghost", "group", 2)])
