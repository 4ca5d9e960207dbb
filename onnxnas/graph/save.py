"""Writing models: whole or not at all, and rewriting a `Graph` by edits."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

import rewriters
from onnxnas.errors import EnvironmentProblem, ModelError
from onnxnas.graph import tensors
from onnxnas.graph.model import Graph
from rewriters.edits import Edit, SetInitializer

LARGEST = (1 << 31) - (1 << 24)  # bytes in one file, with room for what is not weights
_WORTH = 1024  # bytes; smaller tensors stay in the model file
_ALIGN = 4096


def rewrite(
    graph: Graph, edits: Sequence[Edit], weights: Mapping[str, NDArray[Any]] | None = None
) -> ModelProto:
    """A new model: the graph's with `edits` done; `weights` are final values of initializers by name.

    Raises ModelError when the edits are refused, with the reason and the node.
    """
    return rewritten(graph, edits, weights).proto()


def rewritten(
    graph: Graph, edits: Sequence[Edit], weights: Mapping[str, NDArray[Any]] | None = None
) -> rewriters.Parts:
    """`rewrite` with the weights kept apart: what is only written or rewritten again need not copy them.

    Raises ModelError when the edits are refused, with the reason and the node.
    """
    values = [SetInitializer(name, np.asarray(value)) for name, value in (weights or {}).items()]
    result = rewriters.apply(graph.parts, [*edits, *values])
    if isinstance(result, rewriters.Refusal):
        raise ModelError(f"{result.node}: {result.reason}" if result.node else result.reason)
    return result.parts


def too_large(model: ModelProto, largest: int = LARGEST) -> bool:
    """Whether a model has more than `largest` bytes of weights: it cannot be one message then."""
    kinds = ((tensors.numpy_dtype(t.data_type), t.dims) for t in model.graph.initializer)
    total: int = sum(math.prod(dims) * (1 if kind is None else kind.itemsize) for kind, dims in kinds)
    return total > largest


def parse(content: bytes) -> ModelProto:
    """A model that was written here, from its bytes; files from elsewhere come by `load`."""
    return onnx.load_model_from_string(content)


def save(model: ModelProto, path: str | Path, *, largest: int = LARGEST) -> Path:
    """Write a model under `path`: the whole file appears at once, or nothing does.

    A model whose weights are more than `largest` bytes keeps them in a second file, `<name>.data`, in the
    same directory. Returns the path. Raises EnvironmentProblem when the disk refuses.
    """
    path = Path(path)
    if not too_large(model, largest):
        _atomic(path, lambda file: file.write(model.SerializeToString()))
        return path
    data = path.with_name(path.name + ".data")
    skeleton = _skeleton(model)
    _atomic(data, lambda file: _externalise(model, skeleton, data.name, file))
    _atomic(path, lambda file: file.write(skeleton.SerializeToString()))
    return path


def _skeleton(model: ModelProto) -> ModelProto:
    """A copy without initializers."""
    out = ModelProto()
    for field, value in model.ListFields():
        if field.name == "graph":
            continue
        if isinstance(value, (int, str, bytes)):
            setattr(out, field.name, value)
        else:
            getattr(out, field.name).MergeFrom(value)
    for field, value in model.graph.ListFields():
        if field.name == "initializer":
            continue
        if isinstance(value, (int, str, bytes)):
            setattr(out.graph, field.name, value)
        else:
            getattr(out.graph, field.name).MergeFrom(value)
    return out


def _externalise(model: ModelProto, skeleton: ModelProto, location: str, file: BinaryIO) -> None:
    """Write the large initializers to `file` and refer to them in `skeleton`."""
    for tensor in model.graph.initializer:
        if not tensor.HasField("raw_data") or len(tensor.raw_data) < _WORTH:
            skeleton.graph.initializer.append(tensor)
            continue
        data = tensor.raw_data
        file.write(b"\0" * (-file.tell() % _ALIGN))
        target = skeleton.graph.initializer.add(
            name=tensor.name, data_type=tensor.data_type, dims=tensor.dims
        )
        target.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", str(file.tell())), ("length", str(len(data)))):
            target.external_data.append(onnx.StringStringEntryProto(key=key, value=value))
        file.write(data)


def _atomic(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Temporary file beside `path`, fsync, rename, fsync of the directory."""
    temporary = ""
    try:
        descriptor, temporary = tempfile.mkstemp(
            prefix=f".{path.name[:100]}.", suffix=".tmp", dir=path.parent
        )
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        temporary = ""
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise EnvironmentProblem(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
