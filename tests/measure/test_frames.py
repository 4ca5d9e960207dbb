from __future__ import annotations

import json

import numpy as np
import pytest

from onnxnas.measure.frames import MAGIC, PREFIX, FrameError, decode, encode, lengths

ARRAYS = {
    "f4": np.arange(6, dtype=np.float32).reshape(2, 3),
    "f2": np.array([1.5, np.nan], np.float16),
    "big endian": np.array([1, 256], ">i4"),
    "strided": np.arange(10)[::3],
    "transposed": np.arange(6).reshape(2, 3).T,
    "scalar": np.array(7, np.int64),
    "empty": np.zeros((0, 3), np.uint8),
    "bool": np.array([True, False]),
}


def test_round_trip() -> None:
    raw = b"".join(encode({"do": "run", "text": "ü"}, ARRAYS))
    text, body = lengths(raw[: PREFIX.size], 1 << 20)
    assert len(raw) == PREFIX.size + text + body
    start = PREFIX.size + text
    header, arrays = decode(raw[PREFIX.size : start], memoryview(raw[start:]))
    assert (header["do"], header["text"]) == ("run", "ü")
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)


@pytest.mark.parametrize("array", [np.array(["text"]), np.array([{}], object), np.array(["2020"], "M8[Y]")])
def test_only_numbers_are_sent(array: np.ndarray) -> None:
    with pytest.raises(FrameError, match="'x'"):
        encode({}, {"x": array})


@pytest.mark.parametrize(
    "prefix",
    [b"\0" * PREFIX.size, PREFIX.pack(MAGIC, 1 << 31, 0), PREFIX.pack(MAGIC, 10, 1 << 60), b"garbage " * 3],
)
def test_garbage_is_not_a_frame(prefix: bytes) -> None:
    with pytest.raises(FrameError):
        lengths(prefix[: PREFIX.size], 1 << 20)


@pytest.mark.parametrize(
    "header",
    [
        b"\xff\xfe",
        b"[]",
        b"{}",
        b"[" * 100_000,
        json.dumps({"arrays": [{"name": "x", "dtype": "O", "shape": [1]}]}).encode(),
        json.dumps({"arrays": [{"name": "x", "dtype": "f4", "shape": [-1]}]}).encode(),
        json.dumps({"arrays": [{"name": "x", "dtype": "f4", "shape": [3]}]}).encode(),
        json.dumps({"arrays": [{"name": "x", "dtype": "f4", "shape": [1]}]}).encode(),
    ],
)
def test_damaged_headers_are_frame_errors(header: bytes) -> None:
    with pytest.raises(FrameError):
        decode(header, memoryview(b"12345678"))
