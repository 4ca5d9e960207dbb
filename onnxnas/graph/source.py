"""From bytes to a protobuf: what the file is, before what it says.

`read` takes a path to a parsed model and the bytes' SHA-256; it never writes and never follows anything
that the file names. A file that is not ONNX is told apart by its first bytes.
"""

from __future__ import annotations

import hashlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from onnxnas.errors import ModelError
from onnxnas.graph.limits import Limits

_LOOKS: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"version https://git-lfs", "a Git LFS pointer; run `git lfs pull` to get the model itself"),
    (b"PK\x03\x04", "a ZIP archive (a PyTorch checkpoint or .npz?); export the model to ONNX"),
    (b"\x1f\x8b", "gzip data; unpack it first"),
    (b"\x89HDF", "an HDF5 file (Keras?); convert the model to ONNX"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x7fELF", "a program"),
    (b"%PDF", "a PDF document"),
    (b"\x80\x02", "a Python pickle (a PyTorch checkpoint?); export the model to ONNX"),
    (b"\x80\x04", "a Python pickle; export the model to ONNX"),
)


def looks_like(head: bytes) -> str:
    """What a file is by its first bytes, '' when nothing is recognised."""
    if not head:
        return "an empty file"
    for magic, what in _LOOKS:
        if head.startswith(magic):
            return what
    if head[4:8] == b"TFL3":
        return "a TensorFlow Lite model; convert it to ONNX"
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "an HTML page (a failed download?)"
    if text.startswith(b"<?xml"):
        return "an XML file (OpenVINO IR?)"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 30:
        return "a safetensors file (weights without a graph)"
    if text.startswith(b"{"):
        return "a JSON file"
    return ""


def read(path: Path, limits: Limits) -> tuple[onnx.ModelProto, str]:
    """The parsed model of a file and the file's SHA-256 (hex).

    Raises ModelError: no such file, not a regular file, too large, empty, not ONNX, truncated.
    """
    data = _bytes(path, limits)
    with ThreadPoolExecutor(1) as pool:  # hashing needs no interpreter lock
        digest = pool.submit(lambda: hashlib.sha256(data).hexdigest())
        model = parse(data)
        return model, digest.result()


def parse(data: bytes) -> onnx.ModelProto:
    """Parse a serialized model. Raises ModelError saying what else it looks like."""
    what = looks_like(data[:256])
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, RecursionError, MemoryError):
        model.Clear()
        if not what:
            raise ModelError(
                f"not an ONNX model, or a truncated or damaged one: the {len(data):,} bytes do not parse"
            ) from None
    if model.HasField("graph") and model.graph.ListFields():
        return model
    if what:
        raise ModelError(f"not an ONNX model: it is {what}")
    raise ModelError(f"not an ONNX model, or a truncated one: {len(data):,} bytes without a graph")


def _bytes(path: Path, limits: Limits) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ModelError("no such file") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot be opened: {getattr(error, 'strerror', None) or error}") from None
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise ModelError("is a directory; give the .onnx file in it")
        if not stat.S_ISREG(status.st_mode):
            raise ModelError("is not a regular file")
        if status.st_size > limits.file_bytes:
            raise ModelError(
                f"{status.st_size:,} bytes; a model file can have {limits.file_bytes:,} at most "
                "(larger weights belong in external data)"
            )
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(status.st_size)
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror}") from None
    finally:
        os.close(descriptor)
