"""What is not a model is told apart; damage never gets out as anything but a ModelError."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from onnxnas import graph
from onnxnas.errors import ModelError
from onnxnas.testing import graphs

Refuse = Callable[[Any], str]


@pytest.mark.parametrize(
    ("head", "word"),
    [
        (b"", "empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "PNG"),
        (b"\xff\xd8\xff\xe0" + bytes(50), "JPEG"),
        (b"<!DOCTYPE html>\n<html><body>404</body></html>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 1\n", "Git LFS"),
        (b"PK\x03\x04" + bytes(60), "ZIP"),
        (b"\x80\x04\x95" + bytes(60), "pickle"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(60), "TensorFlow Lite"),
        (b"<?xml version='1.0'?><net name='m'/>", "XML"),
        (b'\x10\x00\x00\x00\x00\x00\x00\x00{"a":1}         ', "safetensors"),
        (b'{"nodes": []}', "JSON"),
        (b"\x89HDF\r\n\x1a\n" + bytes(60), "HDF5"),
        (bytes(range(256)) * 4, "not an ONNX model"),
    ],
)
def test_says_what_it_looks_like(refuse: Refuse, head: bytes, word: str) -> None:
    assert word in refuse(head)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        graph.load(tmp_path / "none.onnx")


def test_directory(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="directory"):
        graph.load(tmp_path)


def test_fifo_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.onnx")
    with pytest.raises(ModelError, match="regular file"):
        graph.load(tmp_path / "fifo.onnx")


def test_larger_than_allowed(tmp_path: Path, small: ModelProto) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(small.SerializeToString())
    with pytest.raises(ModelError, match="100 at most"):
        graph.load(path, limits=graph.Limits(file_bytes=100))


def test_file_is_only_read_and_digest_is_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "name with space é.onnx"
    data = graphs.resnet().SerializeToString()
    path.write_bytes(data)
    path.chmod(0o400)
    before = path.stat()
    loaded = graph.load(path)
    assert path.read_bytes() == data
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert os.listdir(tmp_path) == [path.name]
    assert loaded.digest == hashlib.sha256(data).hexdigest()
    assert graph.load(ModelProto.FromString(data)).digest == loaded.digest


def attempt(path: Path) -> bool:
    """Load; True when it loaded into something that hangs together, False when it was refused."""
    try:
        loaded = graph.load(path)
    except ModelError:
        return False
    known = {*loaded.tensors, ""}
    for node in loaded.nodes:
        assert known.issuperset(node.inputs)
    for array in loaded.initializers.values():
        assert array.flags.writeable is False
    return True


@pytest.mark.parametrize("name", ["resnet", "bert"])
def test_truncated_at_sixteenths(tmp_path: Path, name: str) -> None:
    data = graphs.NETWORKS[name](0).SerializeToString()
    path = tmp_path / "model.onnx"
    for step in range(16):
        path.write_bytes(data[: len(data) * step // 16])
        assert attempt(path) is False


def test_flipped_bits(tmp_path: Path) -> None:
    """100 seeded flips of one to four bits, half of them outside the weights, where they hurt."""
    rng = np.random.default_rng(5)
    model = graphs.mbconv(blocks=2)
    for tensor in model.graph.initializer:  # fewer weights, so that most bytes are structure
        if len(tensor.dims) == 4:
            assert tensor.HasField("raw_data")
    data = model.SerializeToString()
    path = tmp_path / "model.onnx"
    loaded = 0
    for number in range(100):
        damaged = bytearray(data)
        reach = len(data) if number % 2 else len(data) // 3  # nodes come first in the file
        for _ in range(int(rng.integers(1, 5))):
            damaged[int(rng.integers(reach))] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        loaded += attempt(path)
    assert 0 < loaded < 100  # a flip in a weight is not noticed, one in the structure is
