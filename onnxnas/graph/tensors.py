"""Tensor protos: whether one holds exactly what it claims, and its value as a numpy array.

The check reads lengths only, so that nothing is allocated for a tensor that lies about itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from onnxnas.errors import ModelError
from onnxnas.graph.limits import Limits
from rewriters import arrays

_T = TensorProto
_LARGEST = 1 << 48  # elements; far beyond any real tensor, far below overflow

_FIELD: dict[int, str] = {
    **dict.fromkeys((_T.FLOAT, _T.COMPLEX64), "float_data"),
    **dict.fromkeys((_T.DOUBLE, _T.COMPLEX128), "double_data"),
    **dict.fromkeys((_T.UINT32, _T.UINT64), "uint64_data"),
    _T.INT64: "int64_data",
    _T.STRING: "string_data",
}
FLOATS = frozenset((_T.FLOAT, _T.FLOAT16, _T.BFLOAT16, _T.DOUBLE))


def _bits() -> dict[int, int]:
    """Element type -> bits of one element in raw data."""
    sizes: dict[int, int] = {}
    for name, number in TensorProto.DataType.items():
        if name in ("UNDEFINED", "STRING"):
            continue
        if name.startswith("FLOAT4") or name.endswith("INT4"):
            sizes[number] = 4
        elif name.endswith("INT2"):
            sizes[number] = 2
        else:
            sizes[number] = helper.tensor_dtype_to_np_dtype(number).itemsize * 8
    return sizes


_BITS = _bits()


def numpy_dtype(number: int) -> np.dtype[Any] | None:
    """The numpy dtype of an ONNX element type (some are of ml_dtypes); None if undefined."""
    if number == _T.STRING:
        return np.dtype(object)
    if number not in _BITS:
        return None
    return np.dtype(helper.tensor_dtype_to_np_dtype(number))


def elements(tensor: TensorProto, limits: Limits) -> int:
    """The product of the dimensions. Raises ModelError for a negative, overflowing or absurd shape."""
    if len(tensor.dims) > limits.rank:
        raise ModelError(f"tensor {tensor.name!r} has {len(tensor.dims)} dimensions; {limits.rank} at most")
    count = 1
    for dim in tensor.dims:
        if dim < 0:
            raise ModelError(f"tensor {tensor.name!r} has a negative dimension: {list(tensor.dims)}")
        count *= dim
        if count > _LARGEST:
            raise ModelError(f"tensor {tensor.name!r} has an impossible shape: {list(tensor.dims)}")
    return count


def raw_bytes(tensor: TensorProto, limits: Limits) -> int:
    """The bytes that a tensor's raw or external data must have. Raises ModelError for a type without any."""
    bits = _BITS.get(tensor.data_type)
    if bits is None:
        raise ModelError(f"tensor {tensor.name!r} has element type {tensor.data_type}, which has no raw data")
    return (elements(tensor, limits) * bits + 7) // 8


def check(tensor: TensorProto, limits: Limits) -> None:
    """Raises ModelError unless the tensor's data is exactly as long as its shape and type say.

    Of external data only the shape and type are judged here: see `external`.
    """
    kind = tensor.data_type
    if kind != _T.STRING and kind not in _BITS:
        raise ModelError(f"tensor {tensor.name!r} has the unknown element type {kind}")
    count = elements(tensor, limits)
    if tensor.HasField("segment"):
        raise ModelError(f"tensor {tensor.name!r} is split in segments, which nothing supports")
    if tensor.data_location == _T.EXTERNAL:
        if kind == _T.STRING:
            raise ModelError(f"tensor {tensor.name!r}: strings cannot be external data")
        return
    if tensor.HasField("raw_data"):
        expected, got = (raw_bytes(tensor, limits) if kind != _T.STRING else 0), len(tensor.raw_data)
        if kind == _T.STRING or got != expected:
            raise ModelError(
                f"tensor {tensor.name!r}: {got:,} bytes of data, but shape {list(tensor.dims)} of "
                f"{_T.DataType.Name(kind)} needs {expected:,}"
            )
        return
    name = _FIELD.get(kind, "int32_data")
    got = len(getattr(tensor, name))
    expected = 2 * count if kind in (_T.COMPLEX64, _T.COMPLEX128) else count
    if kind in _BITS and _BITS[kind] < 8:
        expected = (count * _BITS[kind] + 7) // 8
    if got != expected:
        raise ModelError(
            f"tensor {tensor.name!r}: {got:,} values in {name}, but shape {list(tensor.dims)} of "
            f"{_T.DataType.Name(kind)} needs {expected:,}"
        )


class Initializers(Mapping[str, NDArray[Any]]):
    """The initializers of a graph by name, each made into a read-only array when it is first asked for."""

    def __init__(self, tensors: Iterable[onnx.TensorProto]) -> None:
        self._protos = {tensor.name: tensor for tensor in tensors}
        self._arrays: dict[str, NDArray[Any]] = {}

    def __getitem__(self, name: str) -> NDArray[Any]:
        array = self._arrays.get(name)
        if array is None:
            array = self._arrays[name] = arrays.read(self._protos[name])
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._protos)

    def __len__(self) -> int:
        return len(self._protos)

    def __contains__(self, name: object) -> bool:
        return name in self._protos
