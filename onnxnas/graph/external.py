"""External data: read it only from regular files inside the model's own directory.

Every component of the path is opened relative to its parent without following symbolic links, and the
opened file itself is judged (regular, one link, long enough), so there is no window between check and
use. Nothing outside the directory is opened, not even to look at it.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import onnx
from onnx import TensorProto

from onnxnas.errors import ModelError
from onnxnas.graph import tensors
from onnxnas.graph.limits import Limits

_KEYS = frozenset(("location", "offset", "length", "checksum"))
_CHUNK = 1 << 30


def is_external(tensor: TensorProto) -> bool:
    return tensor.data_location == TensorProto.EXTERNAL


def read(model: onnx.ModelProto, directory: Path, digest: str, limits: Limits) -> str:
    """Move all external data into the model's initializers; `directory` holds the model file.

    Returns the digest (SHA-256, hex) of the model file's digest and all the data read; `digest` itself
    when there is none. Raises ModelError for whatever would leave the directory or is not there.
    """
    wanted = [tensor for tensor in model.graph.initializer if is_external(tensor)]
    if not wanted:
        return digest
    state = hashlib.sha256(bytes.fromhex(digest))
    total = 0
    files: dict[str, int] = {}
    try:
        for tensor in wanted:
            location, offset, length = _entry(tensor, limits)
            total += length
            if total > limits.external_bytes:
                raise ModelError(f"external data of more than {limits.external_bytes:,} bytes")
            if location not in files:
                files[location] = _open(directory, location, tensor.name)
            size = os.fstat(files[location]).st_size
            if offset + length > size:
                raise ModelError(
                    f"tensor {tensor.name!r}: external data {location!r} has {size:,} bytes, but "
                    f"bytes {offset:,} to {offset + length:,} are asked for"
                )
            data = _pread(files[location], offset, length, location)
            state.update(f"{location}\0{offset}\0{length}\0".encode())
            state.update(data)
            tensor.raw_data = data
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
    finally:
        for descriptor in files.values():
            os.close(descriptor)
    return state.hexdigest()


def _entry(tensor: TensorProto, limits: Limits) -> tuple[str, int, int]:
    """Location, offset and length of a tensor's data, in bytes."""
    entries: dict[str, str] = {}
    for entry in tensor.external_data:
        if entry.key not in _KEYS or entry.key in entries:
            raise ModelError(f"tensor {tensor.name!r}: unexpected external data key {entry.key[:40]!r}")
        entries[entry.key] = entry.value
    numbers = {}
    expected = tensors.raw_bytes(tensor, limits)
    for key, default in (("offset", 0), ("length", expected)):
        text = entries.get(key, str(default))
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            raise ModelError(
                f"tensor {tensor.name!r}: external data {key} is {text[:40]!r}, not a size in bytes"
            )
        numbers[key] = int(text)
    if numbers["length"] != expected:
        raise ModelError(
            f"tensor {tensor.name!r}: {numbers['length']:,} bytes of external data, but shape "
            f"{list(tensor.dims)} of {TensorProto.DataType.Name(tensor.data_type)} needs {expected:,}"
        )
    location = entries.get("location", "")
    if not location:
        raise ModelError(f"tensor {tensor.name!r}: external data without a location")
    return location, numbers["offset"], numbers["length"]


def _open(directory: Path, location: str, name: str) -> int:
    where = f"tensor {name!r}: external data {location[:200]!r}"
    parts = location.split("/")
    parts = [part for i, part in enumerate(parts) if part != "." and (part or i == 0)]
    if location.startswith("/") or "\\" in location or "\0" in location or ".." in parts or not parts:
        raise ModelError(f"{where} points outside the model's directory; only files inside it are read")
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for i, part in enumerate(parts):
            last = i + 1 == len(parts)
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_NONBLOCK if last else os.O_DIRECTORY)
            try:
                if stat.S_ISLNK(os.stat(part, dir_fd=descriptor, follow_symlinks=False).st_mode):
                    raise ModelError(
                        f"{where} is a symbolic link, which could lead anywhere; copy the model with its "
                        "data into one directory (cp -L) and give that"
                    )
                following = os.open(part, flags, dir_fd=descriptor)
            except FileNotFoundError:
                raise ModelError(f"{where} is missing; it belongs beside the model file") from None
            except OSError as error:
                raise ModelError(f"{where} cannot be opened: {error.strerror}") from None
            os.close(descriptor)
            descriptor = following
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ModelError(f"{where} is not a regular file")
        if status.st_nlink != 1:
            raise ModelError(f"{where} is a hard link, which could be any file; copy it (cp) and try again")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _pread(descriptor: int, offset: int, length: int, location: str) -> bytes:
    pieces = []
    while length:
        try:
            piece = os.pread(descriptor, min(length, _CHUNK), offset)
        except OSError as error:
            raise ModelError(f"external data {location!r} cannot be read: {error.strerror}") from None
        if not piece:
            raise ModelError(f"external data {location!r} became shorter while it was read")
        pieces.append(piece)
        offset += len(piece)
        length -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
