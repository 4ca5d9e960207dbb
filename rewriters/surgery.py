"""An ONNX model opened for surgery as an onnx-graphsurgeon graph, and closed into a new model.

graphsurgeon gives the two-way links between nodes and tensors. It does not model everything a file can
hold (node metadata, empty list attributes, some types), and it copies weights several times; so nodes are
written back from their own protobuf with the links taken from the graph, and weights are left out of the
graph until someone asks for their values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from rewriters import arrays
from rewriters.skeleton import bodies, strip

Array = NDArray[Any]


class Surgery:
    """`model` opened. Names given to `node` and `tensor` are those of the model as it was opened.

    `read` has numbers of its initializers that somebody has read before: a protobuf copies them each time.

    Raises:
        ValueError: graphsurgeon cannot represent the model.
    """

    def __init__(self, model: onnx.ModelProto, read: Mapping[str, Array] | None = None) -> None:
        self.model = model
        self._read = {} if read is None else read
        skeleton = strip(model)
        del skeleton.functions[:]  # taken over as they are
        try:
            self.graph: Any = gs.import_onnx(skeleton)
        except Exception as problem:
            raise ValueError(f"onnx-graphsurgeon cannot open the model: {problem}") from problem
        self._stored = {t.name: t for t in model.graph.initializer}
        self._values: dict[int, Array] = {}
        self._protos: dict[int, onnx.NodeProto] = {}
        self._attributes: dict[int, dict[str, onnx.AttributeProto | None]] = {}
        self._nodes: dict[str, list[Any]] = {}
        for node, proto in zip(self.graph.nodes, skeleton.graph.node, strict=True):
            self._protos[id(node)] = proto
            self._nodes.setdefault(node.name, []).append(node)
        self._tensors: dict[str, Any] = dict(self.graph.tensors())
        self._tensors.update((t.name, t) for t in [*self.graph.inputs, *self.graph.outputs])
        for tensor in self._constants():  # those that only a body reads
            self._tensors.setdefault(tensor.name, tensor)
        self._taken = set(self._tensors) | set(self._nodes) | set(self._stored)
        self.opset = {o.domain or "ai.onnx": o.version for o in model.opset_import}.get("ai.onnx", 1)
        self.consumed: set[str] = set()  # initializers whose values went into others
        self.kept: dict[tuple[str, int], tuple[int, NDArray[np.int64]]] = {}

    # names of the model as it was opened

    def node(self, name: str) -> Any:
        """The one node called `name`, or None (no such node, or several)."""
        found = self._nodes.get(name, [])
        return found[0] if len(found) == 1 and name else None

    def tensor(self, name: str) -> Any:
        """The tensor that was called `name` when the model was opened, or None."""
        return self._tensors.get(name) if name else None

    def fresh(self, name: str) -> str:
        """`name`, or `name` with a number, such that no node or tensor has it; it is taken from now on."""
        candidate, number = name, 1
        while candidate in self._taken:
            candidate, number = f"{name}_{number}", number + 1
        self._taken.add(candidate)
        return candidate

    # initializers

    def is_constant(self, tensor: Any) -> bool:
        """Whether `tensor` is an initializer whose numbers are at hand."""
        if not isinstance(tensor, gs.Constant):
            return False
        if id(tensor) in self._values:
            return True
        stored = self._stored.get(tensor.name)
        return stored is not None and stored.data_location != onnx.TensorProto.EXTERNAL

    def values(self, tensor: Any) -> Array:
        """The numbers of an initializer (see `is_constant`); not to be written into."""
        if id(tensor) not in self._values:
            known = self._read.get(tensor.name)
            return arrays.read(self._stored[tensor.name]) if known is None else known
        return self._values[id(tensor)]

    def set_values(self, tensor: Any, values: Array) -> None:
        """Give an initializer new numbers; its users all see them."""
        self._values[id(tensor)] = values
        tensor.values = values

    def constant(self, name: str, values: Array) -> Any:
        """A new initializer; a number is put behind `name` if it is taken."""
        tensor = gs.Constant(self.fresh(name), values)
        self._values[id(tensor)] = values
        return tensor

    def own(self, node: Any, index: int, values: Array) -> None:
        """Give input `index` of `node` these numbers without changing what others read."""
        old = node.inputs[index]
        if isinstance(old, gs.Constant) and len(old.outputs) == 1 and old not in self.graph.outputs:
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

    # closing

    def _node_proto(self, node: Any, name: str) -> onnx.NodeProto:
        proto = onnx.NodeProto()
        origin = self._protos.get(id(node))
        if origin is None:
            proto = onnx.helper.make_node(node.op, [], [], domain=node.domain, **node.attrs)
        else:
            proto.CopyFrom(origin)
            changed = self._attributes.get(id(node), {})
            if changed:
                kept = [a for a in proto.attribute if a.name not in changed]
                del proto.attribute[:]
                proto.attribute.extend([*kept, *(a for a in changed.values() if a is not None)])
        proto.name = name
        _connect(proto, node)
        return proto

    def close(self) -> onnx.ModelProto:
        """The model as the graph now is: unused initializers and all value_info left out, names unique."""
        out = onnx.ModelProto()
        out.CopyFrom(strip_graph(self.model))
        taken: set[str] = set()
        for number, node in enumerate(self.graph.nodes):
            name = node.name or f"{node.op}_{number}"
            while name in taken:
                name = f"{name}_{number}"
            taken.add(name)
            out.graph.node.append(self._node_proto(node, name))
        for tensor in self._constants():
            if id(tensor) in self._values:
                arrays.write(out.graph.initializer.add(), tensor.name, self._values[id(tensor)])
            elif tensor.name in self._stored:
                out.graph.initializer.add().CopyFrom(self._stored[tensor.name])
        out.graph.sparse_initializer.extend(self.model.graph.sparse_initializer)
        names = {t.name for t in out.graph.initializer}
        given = {t.name for t in self.model.graph.initializer}
        inputs = [i for i in self.model.graph.input if i.name not in given or i.name in names]
        del out.graph.input[:]
        out.graph.input.extend(inputs)
        if out.ir_version < 4 and names - {i.name for i in inputs}:
            out.ir_version = 4  # before that an initializer had to be an input as well
        return out

    def _constants(self) -> Iterator[Any]:
        """Every initializer that is read by a node, a body or the graph's outputs, once."""
        seen: set[int] = set()
        stack = [*self.graph.outputs]
        for node in self.graph.nodes:
            stack.extend(node.inputs)
            for body in node.subgraphs(recursive=True):
                for inner in body.nodes:
                    stack.extend(inner.inputs)
        for tensor in stack:
            if isinstance(tensor, gs.Constant) and id(tensor) not in seen:
                seen.add(id(tensor))
                if id(tensor) in self._values or tensor.name in self._stored:
                    yield tensor


def strip_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` without nodes and initializers."""
    out = strip(model, initializers=False)
    del out.graph.node[:]
    del out.graph.sparse_initializer[:]
    return out


def _connect(proto: onnx.NodeProto, node: Any) -> None:
    """Copy the links of a graphsurgeon node into its protobuf, bodies included."""
    inputs, outputs = [t.name for t in node.inputs], [t.name for t in node.outputs]
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
