"""Types and shapes of tensors, one node at a time, with `Dim`s for what is not a number.

Node by node rather than for the whole model, because constants found on the way make later shapes known,
and because no weight is ever needed. A dimension that nothing is known of gets a name of its own, so that
two reads of it compare equal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TypeProto, numpy_helper

from rewriters import microsoft
from rewriters.skeleton import captures
from rewriters.symbols import Dim, Element, is_known, product

LIKE_INPUT = {("", "GroupNormalization"), ("", "MeanVarianceNormalization")}
"""(domain, operator) of which onnx infers nothing: defined by a function; the output is like the first input."""
_LARGEST_DATA = 4096  # elements of a constant that inference is shown (targets, axes, sizes)


class Types:
    """What is known of each tensor: its type, and its shape as a tuple of ints and `Dim`s."""

    def __init__(self, opsets: Iterable[onnx.OperatorSetIdProto], ir_version: int) -> None:
        self.opsets = [onnx.helper.make_opsetid(o.domain.removeprefix("ai.onnx") or "", o.version)
                       if o.domain in ("", "ai.onnx") else o for o in opsets]  # fmt: skip
        self._versions = {o.domain: o.version for o in self.opsets}
        self._ir_version = ir_version
        self._known: dict[str, TypeProto] = {}
        self._symbols: dict[str, Dim] = {}
        self._fresh = 0

    def get(self, name: str) -> TypeProto | None:
        """The type of tensor `name`, every dimension with a value or a symbol."""
        return self._known.get(name)

    def element(self, name: str) -> int:
        """The element type of tensor `name` (onnx.TensorProto.DataType), 0 if unknown."""
        known = self._known.get(name)
        return known.tensor_type.elem_type if known is not None else 0

    def shape(self, name: str) -> tuple[Element, ...] | None:
        """The shape of tensor `name`, or None."""
        known = self._known.get(name)
        if known is None or not known.HasField("tensor_type") or not known.tensor_type.HasField("shape"):
            return None
        return tuple(
            d.dim_value if d.HasField("dim_value") else self.symbol(d.dim_param)
            for d in known.tensor_type.shape.dim
        )

    def symbol(self, text: str) -> Dim:
        """The dimension written as `text`."""
        return self._symbols.setdefault(text, Dim((text,)))

    def name(self, dim: Dim) -> str:
        """The text of a dimension, remembered so that `symbol` gives it back."""
        text = str(dim)
        self._symbols.setdefault(text, dim)
        return text

    def set(self, name: str, known: TypeProto) -> None:
        """Record a type; dimensions without a positive value or a symbol get a symbol of their own."""
        own = TypeProto()
        own.CopyFrom(known)
        if own.HasField("tensor_type"):
            for dim in own.tensor_type.shape.dim if own.tensor_type.HasField("shape") else ():
                if not dim.dim_param and (not dim.HasField("dim_value") or dim.dim_value < 0):
                    self._fresh += 1
                    dim.dim_param = f"unk__{self._fresh}"
        self._known[name] = own

    def set_shape(self, name: str, element: int, shape: Iterable[Element]) -> None:
        """Record a tensor type from an element type and a shape."""
        dims = [self.name(d) if isinstance(d, Dim) else int(d) for d in shape]
        self._known[name] = onnx.helper.make_tensor_type_proto(element, dims)

    def set_constant(self, name: str, element: int, shape: Iterable[int]) -> None:
        """Record the type of an initializer."""
        self._known[name] = onnx.helper.make_tensor_type_proto(element, list(shape))

    def rename(self, old: str, new: str) -> None:
        """Tensor `old` is called `new` from now on."""
        if old in self._known:
            self._known[new] = self._known[old]

    def infer(self, node: onnx.NodeProto, values: Mapping[str, NDArray[Any]]) -> dict[str, TypeProto]:
        """Infer the types of the outputs of `node`; empty where the operator or its inputs are unknown.

        `values`: constants by name, of which the small ones are shown to the operator's inference.
        """
        domain = "" if node.domain == "ai.onnx" else node.domain
        if (domain, node.op_type) in LIKE_INPUT:
            first = self._known.get(node.input[0])
            return {} if first is None else {node.output[0]: first}
        if domain == microsoft.DOMAIN and node.op_type in microsoft.SHAPES:
            return self._microsoft(node)
        if domain == "ai.onnx.ml" and (own := self._classical(node)) is not None:
            return {node.output[0]: own}
        version = self._versions.get(domain)
        if version is None or not onnx.defs.has(node.op_type, version, domain):
            return {}
        names = {*node.input, *captures(node)} - {""}
        types = {n: self._known[n] for n in names if n in self._known}
        if any(n not in types for n in node.input if n):
            return {}
        data = {}
        for name in node.input:
            value = values.get(name)
            if value is not None and value.size <= _LARGEST_DATA and is_known(value):
                data[name] = numpy_helper.from_array(np.asarray(value), name)
        try:
            schema = onnx.defs.get_schema(node.op_type, version, domain)
            found: dict[str, TypeProto] = onnx.shape_inference.infer_node_outputs(
                schema, node, types, data, opset_imports=self.opsets, ir_version=self._ir_version
            )
        except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError):
            return {}
        return {name: known for name, known in found.items() if known.WhichOneof("value")}

    def _microsoft(self, node: onnx.NodeProto) -> dict[str, TypeProto]:
        """What `microsoft` says of the outputs; they have the element type of the first input."""
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        given = [self.shape(name) if name else None for name in node.input]
        element = self.element(node.input[0])
        found = {}
        for name, shape in zip(node.output, microsoft.SHAPES[node.op_type](attributes, given), strict=False):
            if name and shape is not None and element:
                dims = [self.name(d) if isinstance(d, Dim) else int(d) for d in shape]
                found[name] = onnx.helper.make_tensor_type_proto(element, dims)
        return found

    def _classical(self, node: onnx.NodeProto) -> TypeProto | None:
        """What onnx does not infer of scikit-learn's operators: scaled features, and entries taken from a vector."""
        shapes = [self.shape(name) for name in node.input]
        if None in shapes:
            return None
        first, *others = (list(shape or ()) for shape in shapes)
        element = self.element(node.input[0])
        if node.op_type in ("Normalizer", "Scaler"):
            element = onnx.TensorProto.FLOAT
        elif node.op_type == "ArrayFeatureExtractor" and len(first) == 1:
            first = [1, product(others[0])]
        else:
            return None
        return onnx.helper.make_tensor_type_proto(
            element, [self.name(d) if isinstance(d, Dim) else d for d in first]
        )


def vague(known: TypeProto) -> bool:
    """Whether a type says nothing about the shape."""
    return known.HasField("tensor_type") and not known.tensor_type.HasField("shape")
