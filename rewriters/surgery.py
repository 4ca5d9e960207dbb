"""An ONNX model opened for surgery as an onnx-graphsurgeon graph, and closed into a new model.

graphsurgeon gives the two-way links between nodes and tensors, and rewriters work on its graph. It does not model
everything a file can hold (node metadata, empty list attributes, some types), so nodes are written back from their
own protobuf with the links taken from the graph. Weights take no part: they stay apart (`Parts`), and the graph's
Constants only stand for them; `Surgery.values` and `Surgery.form` say what they hold. A graph is a circle of links,
which lives on until Python looks for circles, and with it whatever numbers were put into it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from rewriters import arrays
from rewriters.opened import Opened
from rewriters.parts import Array, Parts, Weight
from rewriters.share import unique
from rewriters.skeleton import bodies, strip

_NOTHING = np.empty(0, np.float32)  # what the Constants of a graph are given


class Surgery:
    """A model opened. Names given to `node` and `tensor` are those of the model as it was opened.

    Raises:
        ValueError: graphsurgeon cannot represent the model.
    """

    def __init__(self, model: onnx.ModelProto | Parts) -> None:
        self.parts = model if isinstance(model, Parts) else Parts.of(model)
        structure = self.parts.structure
        try:
            self._opened = self.parts.idle.pop()  # whoever else asks at this moment gets another
        except IndexError:
            self._opened = Opened(self.parts)
        self.graph: Any = self._opened.graph
        self._weights: dict[str, Weight | arrays.Selection] = dict(self.parts.weights)
        self._attributes: dict[int, dict[str, onnx.AttributeProto | None]] = {}
        self._taken = {*self._opened.tensors, *self._opened.nodes, *self._weights}
        self.opset = {o.domain or "ai.onnx": o.version for o in structure.opset_import}.get("ai.onnx", 1)
        self.consumed: set[str] = set()  # initializers whose values went into others
        self.kept: dict[tuple[str, int], tuple[int, NDArray[np.int64]]] = {}

    # names of the model as it was opened

    def node(self, name: str) -> Any:
        """The one node called `name`, or None (no such node, or several)."""
        found = self._opened.nodes.get(name, [])
        return found[0] if len(found) == 1 and name else None

    def tensor(self, name: str) -> Any:
        """The tensor that was called `name` when the model was opened, or None."""
        return self._opened.tensors.get(name) if name else None

    def fresh(self, name: str) -> str:
        """`name`, or `name` with a number, such that no node or tensor has it; it is taken from now on."""
        return unique(name, self._taken)

    # initializers

    def is_initializer(self, tensor: Any) -> bool:
        """Whether `tensor` is an initializer of the main graph, and not a sparse one."""
        return isinstance(tensor, gs.Constant) and tensor.name in self._weights

    def is_constant(self, tensor: Any) -> bool:
        """Whether `tensor` is an initializer whose numbers are at hand."""
        if not self.is_initializer(tensor):
            return False
        weight = self._weights[tensor.name]
        return not isinstance(weight, onnx.TensorProto) or weight.data_location != onnx.TensorProto.EXTERNAL

    def values(self, tensor: Any) -> Array:
        """The numbers of an initializer (see `is_constant`); not to be written into."""
        weight = self._weights[tensor.name]
        if isinstance(weight, onnx.TensorProto):
            known = self.parts.read.get(tensor.name)
            return arrays.read(weight) if known is None else known
        if isinstance(weight, arrays.Selection):
            weight = self._weights[tensor.name] = weight.array()
        return weight

    def form(self, tensor: Any) -> tuple[tuple[int, ...], np.dtype[Any] | None]:
        """Shape and element type of an initializer; None for a type that numpy does not have by itself."""
        weight = self._weights[tensor.name]
        if isinstance(weight, onnx.TensorProto):
            return tuple(weight.dims), arrays.dtype(weight)
        return weight.shape, weight.dtype

    def set_values(self, tensor: Any, values: Array) -> None:
        """Give an initializer new numbers; its users all see them."""
        self._weights[tensor.name] = values

    def keep(self, tensor: Any, axis: int, indices: NDArray[np.integer[Any]]) -> None:
        """Leave of an initializer what `indices` say of `axis`, which is still whole."""
        weight = self._weights[tensor.name]
        if not isinstance(weight, arrays.Selection):
            weight = self._weights[tensor.name] = arrays.Selection(self.values(tensor))
        weight.take(axis, indices)

    def constant(self, name: str, values: Array) -> Any:
        """A new initializer; a number is put behind `name` if it is taken."""
        tensor = gs.Constant(self.fresh(name), _NOTHING)
        self.set_values(tensor, values)
        return tensor

    def own(self, node: Any, index: int, values: Array) -> None:
        """Give input `index` of `node` these numbers without changing what others read."""
        old = node.inputs[index]
        if self.is_initializer(old) and len(old.outputs) == 1 and old not in self.graph.outputs:
            self.set_values(old, values)
        else:
            node.inputs[index] = self.constant(f"{old.name or node.name}_{node.name}", values)

    # attributes

    def attribute(self, node: Any, name: str, default: Any = None) -> Any:
        """The current value of an attribute: int, float, str or list."""
        return node.attrs.get(name, default)

    def set_attribute(self, node: Any, name: str, value: Any) -> None:
        """Set an attribute, or drop it when `value` is None. Raises ValueError when its type is unclear."""
        if value is None:
            node.attrs.pop(name, None)
            self._attributes.setdefault(id(node), {})[name] = None
            return
        kind = None
        if onnx.defs.has(node.op, self.opset, node.domain or ""):
            schema = onnx.defs.get_schema(node.op, self.opset, node.domain or "")
            if name not in schema.attributes:
                raise ValueError(f"{node.op} of opset {self.opset} has no attribute '{name}'")
            declared: Any = schema.attributes[name].type
            kind = int(declared)
            if kind == onnx.AttributeProto.FLOAT:
                value = float(value)
        node.attrs[name] = value
        self._attributes.setdefault(id(node), {})[name] = onnx.helper.make_attribute(
            name, value, attr_type=kind
        )

    # links

    def read_by(self, node: Any) -> Iterator[Any]:
        """The tensors that `node` reads, in its bodies too."""
        yield from node.inputs
        for body in self._opened.bodies.get(id(node), ()):
            for inner in body.nodes:
                yield from inner.inputs
            yield from body.outputs

    def _constants(self) -> Iterator[Any]:
        """Every initializer that is an output of the graph or read by a node or a body, once."""
        seen: set[str] = set()
        for tensor in (*self.graph.outputs, *(t for node in self.graph.nodes for t in self.read_by(node))):
            if tensor.name not in seen and self.is_initializer(tensor):
                seen.add(tensor.name)
                yield tensor

    # closing

    def close(self) -> Parts:
        """The model as the graph now is: unused initializers and all value_info left out, names unique.

        The surgery is over then: its graph goes back to where it was taken from.
        """
        before = self.parts.structure
        out = strip(before, initializers=False, nodes=False)
        taken: set[str] = set()
        protos = []
        for number, node in enumerate(self.graph.nodes):
            name = node.name or f"{node.op}_{number}"
            while name in taken:
                name = f"{name}_{number}"
            taken.add(name)
            protos.append(self._node_proto(node, name))
        out.graph.node.extend(protos)
        weights = {t.name: self._final(t) for t in self._constants()}
        inputs = [i for i in before.graph.input if i.name not in self.parts.weights or i.name in weights]
        del out.graph.input[:]
        out.graph.input.extend(inputs)
        if out.ir_version < 4 and weights.keys() - {i.name for i in inputs}:
            out.ir_version = 4  # before that an initializer had to be an input as well
        self.graph = None
        self._opened.restore()
        self.parts.idle.append(self._opened)
        return Parts(out, weights, self.parts.read)

    def _final(self, tensor: Any) -> Weight:
        """An initializer as the file had it, or its numbers."""
        weight = self._weights[tensor.name]
        return weight.array() if isinstance(weight, arrays.Selection) else weight

    def _node_proto(self, node: Any, name: str) -> onnx.NodeProto:
        """`node` as it is linked now; where nothing changed the original, which is not to be written into."""
        origin = self._opened.protos.get(id(node))
        changed = self._attributes.get(id(node), {})
        if origin is None:
            proto = onnx.helper.make_node(node.op, [], [], domain=node.domain, **node.attrs)
        else:
            same = origin.name == name and not changed and id(node) not in self._opened.bodies
            if same and _links(origin) == _links(node):
                return origin
            proto = onnx.NodeProto()
            proto.CopyFrom(origin)
            if changed:
                kept = [a for a in proto.attribute if a.name not in changed]
                del proto.attribute[:]
                proto.attribute.extend([*kept, *(a for a in changed.values() if a is not None)])
        proto.name = name
        _connect(proto, node)
        return proto


def _links(node: Any) -> tuple[list[str], list[str]]:
    """The names of inputs and outputs, of a protobuf or of a graphsurgeon node."""
    if isinstance(node, onnx.NodeProto):
        return list(node.input), list(node.output)
    return [t.name for t in node.inputs], [t.name for t in node.outputs]


def _connect(proto: onnx.NodeProto, node: Any) -> None:
    """Copy the links of a graphsurgeon node into its protobuf, bodies included."""
    inputs, outputs = _links(node)
    if list(proto.input) != inputs:
        del proto.input[:]
        proto.input.extend(inputs)
    if list(proto.output) != outputs:
        del proto.output[:]
        proto.output.extend(outputs)
    graphs = [v for v in node.attrs.values() if isinstance(v, gs.Graph)]
    for body, graph in zip(bodies(proto), graphs, strict=False):
        del body.value_info[:]
        for inner_proto, inner in zip(body.node, graph.nodes, strict=True):
            _connect(inner_proto, inner)
