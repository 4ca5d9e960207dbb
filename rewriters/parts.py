"""A model in two parts: its structure as a protobuf, its weights as arrays.

A protobuf copies weights whenever they are put in, and again (growing as it goes) when it is serialised. What is
only rewired keeps them apart, and writes each number once, straight into the file's bytes.

    message  = field*        field = tag length payload      tag = number << 3 | 2
    ModelProto.graph = 7     GraphProto.initializer = 5      TensorProto.raw_data = 9

The order of fields in a message does not matter to who reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import onnx
from numpy.typing import NDArray

from rewriters import arrays
from rewriters.skeleton import strip

if TYPE_CHECKING:
    from rewriters.opened import Opened

Array = NDArray[Any]
Weight = onnx.TensorProto | Array
"""An initializer: as the file has it, or as new numbers."""

_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9
_LARGEST = (1 << 31) - 1  # bytes of a message, says protobuf


@dataclass(frozen=True, eq=False)
class Parts:
    """A model whose weights are kept apart.

    Attributes:
        structure: the model; initializers in it do not count.
        weights: every initializer by name, as new numbers or as the file has it.
        read: the numbers of some that are still as the file has them.
        idle: graphs opened of it (`rewriters.opened`) that no surgery is at work on.
    """

    structure: onnx.ModelProto
    weights: Mapping[str, Weight]
    read: Mapping[str, Array] = field(default_factory=dict)
    idle: list[Opened] = field(default_factory=list, init=False, repr=False)

    @classmethod
    def of(cls, model: onnx.ModelProto, read: Mapping[str, Array] | None = None) -> Parts:
        """The parts of a whole model, nothing copied."""
        return cls(model, {t.name: t for t in model.graph.initializer}, {} if read is None else read)

    def proto(self) -> onnx.ModelProto:
        """The whole model as a new protobuf, of any size."""
        out = strip(self.structure, initializers=False)
        for name, weight in self.weights.items():
            if isinstance(weight, onnx.TensorProto):
                out.graph.initializer.add().CopyFrom(weight)
            else:
                arrays.write(out.graph.initializer.add(), name, weight)
        return out

    def to_bytes(self) -> bytes:
        """The file's content. Raises ValueError above 2 GB, where it takes a second file (`proto`)."""
        structure = strip(self.structure, initializers=False)
        chunks: list[Any] = [structure.graph.SerializeToString()]
        for name, weight in self.weights.items():
            chunks += _initializer(name, weight, self.read)
        length = sum(map(_size, chunks))
        if length > _LARGEST:
            raise ValueError(f"a model of {length:,} bytes cannot be one message; save it with external data")
        structure.ClearField("graph")
        return b"".join([structure.SerializeToString(), _head(_GRAPH, length), *chunks])


def _initializer(name: str, weight: Weight, read: Mapping[str, Array]) -> list[Any]:
    """A field of GraphProto in pieces, the numbers themselves as the last of them."""
    if isinstance(weight, onnx.TensorProto):
        if not arrays.bare(weight) or name not in read:
            content = weight.SerializeToString()
            return [_head(_INITIALIZER, len(content)), content]
        weight = read[name]
    tensor = onnx.TensorProto()
    numbers = arrays.describe(tensor, name, weight)
    content = tensor.SerializeToString()
    if numbers is None:
        return [_head(_INITIALIZER, len(content)), content]
    content += _head(_RAW_DATA, numbers.nbytes)
    return [_head(_INITIALIZER, len(content) + numbers.nbytes) + content, numbers]


def _size(chunk: Any) -> int:
    return len(chunk) if isinstance(chunk, bytes) else int(chunk.nbytes)


def _head(number: int, length: int) -> bytes:
    """Tag and length of a field."""
    out = bytearray([number << 3 | 2])
    while length > 127:
        out.append(length & 127 | 128)
        length >>= 7
    out.append(length)
    return bytes(out)
