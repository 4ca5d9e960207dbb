"""The pieces that a fused node is taken apart into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from rewriters.inference import Types
from rewriters.microsoft import DOMAIN as DOMAIN


class Place(Protocol):
    """Where the pieces are put: names that are free, constants, what is known of tensors."""

    types: Types

    def free(self, name: str) -> str: ...

    def new(self, name: str, value: NDArray[Any]) -> str: ...


class Pieces:
    """The nodes that stand for one fused node, in order."""

    def __init__(self, node: onnx.NodeProto, attributes: Mapping[str, Any], place: Place, opset: int) -> None:
        self.node, self.attributes, self.place, self.opset = node, attributes, place, opset
        self.nodes: list[onnx.NodeProto] = []

    def input(self, index: int) -> str:
        """The name of an input of the fused node; '' when it is not there."""
        return self.node.input[index] if index < len(self.node.input) else ""

    def output(self, index: int) -> str:
        """The name of an output of the fused node; '' when nobody asked for it."""
        return self.node.output[index] if index < len(self.node.output) else ""

    def shape(self, name: str) -> Any:
        return self.place.types.shape(name)

    def constant(self, what: str, value: Any, like: str = "") -> str:
        """A new constant, of the element type of tensor `like`, or of int64."""
        kind: Any = np.int64
        if like:
            element = self.place.types.element(like) or onnx.TensorProto.FLOAT
            kind = onnx.helper.tensor_dtype_to_np_dtype(element)
        return self.place.new(f"{self._base}_{what}", np.asarray(value, kind))

    def add(
        self, op: str, *inputs: str, to: Sequence[str] = ("",), domain: str = "", **attributes: Any
    ) -> str:
        """A node; outputs without a name get a free one. Returns the first output."""
        name = self.place.free(f"{self._base}_{op}")
        outputs = [output or self.place.free(f"{name}_output_{i}") for i, output in enumerate(to)]
        part = onnx.helper.make_node(op, list(inputs), outputs, name=name, domain=domain, **attributes)
        part.metadata_props.extend(self.node.metadata_props)
        self.nodes.append(part)
        return outputs[0]

    def over(self, op: str, x: str, axes: Sequence[int], to: str = "", **attributes: Any) -> str:
        """A reduction, whose axes are an attribute or, from opset 18 (ReduceSum: 13) on, an input."""
        if self.opset >= (13 if op == "ReduceSum" else 18):
            return self.add(op, x, self.constant("axes", axes), to=[to], **attributes)
        return self.add(op, x, to=[to], axes=list(axes), **attributes)

    @property
    def _base(self) -> str:
        return self.node.name or next(iter(self.node.output))
