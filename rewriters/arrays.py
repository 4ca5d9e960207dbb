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


def read(tensor: onnx.TensorProto) -> NDArray[Any]:
    """The numbers of a tensor, read-only; the protobuf's own bytes where that is possible."""
    dtype = _NATIVE.get(tensor.data_type)
    if _PLAIN and dtype is not None and tensor.HasField("raw_data"):
        return np.frombuffer(tensor.raw_data, dtype).reshape(tuple(tensor.dims))
    values = np.asarray(numpy_helper.to_array(tensor))
    values.setflags(write=False)
    return values


def write(tensor: onnx.TensorProto, name: str, values: NDArray[Any]) -> None:
    """Fill an empty tensor."""
    kind = _KINDS.get(values.dtype)
    if not _PLAIN or kind is None:
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), name))
        return
    tensor.name, tensor.data_type = name, kind
    tensor.dims.extend(values.shape)
    tensor.raw_data = values.tobytes()
