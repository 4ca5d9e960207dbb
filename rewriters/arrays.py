"""Tensors of a protobuf to numpy and back, with as few copies as the protobuf allows."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

# kinds whose stored bytes are numpy's own on a little-endian machine
_NATIVE: dict[int, np.dtype[Any]] = {
    TensorProto.FLOAT: np.dtype(np.float32),
    TensorProto.DOUBLE: np.dtype(np.float64),
    TensorProto.FLOAT16: np.dtype(np.float16),
    TensorProto.INT64: np.dtype(np.int64),
    TensorProto.INT32: np.dtype(np.int32),
    TensorProto.INT16: np.dtype(np.int16),
    TensorProto.INT8: np.dtype(np.int8),
    TensorProto.UINT64: np.dtype(np.uint64),
    TensorProto.UINT32: np.dtype(np.uint32),
    TensorProto.UINT16: np.dtype(np.uint16),
    TensorProto.UINT8: np.dtype(np.uint8),
    TensorProto.BOOL: np.dtype(np.bool_),
}
_KINDS = {dtype: kind for kind, dtype in _NATIVE.items()}
_PLAIN = sys.byteorder == "little"


class Selection:
    """Part of an array along some of its axes, taken when it is asked for: by then it may not be wanted."""

    def __init__(self, base: NDArray[Any]) -> None:
        self._base = base
        self._indices: dict[int, NDArray[np.integer[Any]]] = {}

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of what is left."""
        sizes = enumerate(self._base.shape)
        return tuple(self._indices[axis].size if axis in self._indices else size for axis, size in sizes)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The element type."""
        return self._base.dtype

    def take(self, axis: int, indices: NDArray[np.integer[Any]]) -> None:
        """Take these of an axis, of which all were left so far."""
        self._indices[axis] = indices

    def array(self) -> NDArray[Any]:
        """The numbers, a view where each axis is left without gaps."""
        found = self._base
        for axis, indices in sorted(self._indices.items()):  # whole rows first: that is the fastest copy
            first, last = int(indices[0]), int(indices[-1])
            if last - first + 1 == indices.size and (np.diff(indices) == 1).all():
                found = found[(*(slice(None),) * axis, slice(first, last + 1))]
            else:
                found = found.take(indices, axis=axis)
        return found


def dtype(tensor: onnx.TensorProto) -> np.dtype[Any] | None:
    """The element type of a tensor, if it is one of numpy's own."""
    return _NATIVE.get(tensor.data_type)


def read(tensor: onnx.TensorProto) -> NDArray[Any]:
    """The numbers of a tensor, read-only; the protobuf's own bytes where that is possible."""
    kind = dtype(tensor)
    if _PLAIN and kind is not None and tensor.HasField("raw_data"):
        return np.frombuffer(tensor.raw_data, kind).reshape(tuple(tensor.dims))
    values = np.asarray(numpy_helper.to_array(tensor))
    values.setflags(write=False)
    return values


def form(weight: onnx.TensorProto | NDArray[Any] | Selection) -> tuple[int, tuple[int, ...]]:
    """Element type (onnx.TensorProto.DataType) and shape of an initializer."""
    if isinstance(weight, onnx.TensorProto):
        return weight.data_type, tuple(weight.dims)
    return _KINDS.get(weight.dtype) or onnx.helper.np_dtype_to_tensor_dtype(weight.dtype), weight.shape


def bare(tensor: onnx.TensorProto) -> bool:
    """Whether a tensor is name, shape, type and raw numbers of a kind that numpy has, and nothing else."""
    return (
        _PLAIN
        and tensor.data_type in _NATIVE
        and tensor.HasField("raw_data")
        and not tensor.HasField("doc_string")
        and not tensor.HasField("data_location")
        and not tensor.HasField("segment")
        and not tensor.external_data
        and not tensor.metadata_props
    )


def describe(tensor: onnx.TensorProto, name: str, values: NDArray[Any]) -> NDArray[Any] | None:
    """Fill an empty tensor but for the raw data, which are returned in C order; None if all is said."""
    kind = _KINDS.get(values.dtype)
    if not _PLAIN or kind is None:
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), name))
        return None
    tensor.name, tensor.data_type = name, kind
    tensor.dims.extend(values.shape)
    return np.asarray(values, order="C")


def write(tensor: onnx.TensorProto, name: str, values: NDArray[Any]) -> None:
    """Fill an empty tensor."""
    numbers = describe(tensor, name, values)
    if numbers is not None:
        tensor.raw_data = numbers.tobytes()
