"""Protobuf nodes to `Node` values: attributes as Python values, operator versions, module paths."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, NodeProto

from onnxnas.graph.validate import captures
from onnxnas.types import Node, Subgraph
from rewriters import arrays
from rewriters.constants import constant_node_value
from rewriters.parts import Parts

_A = AttributeProto
_LEAVES = frozenset(
    (
        "weight",
        "bias",
        "running_mean",
        "running_var",
        "gamma",
        "beta",
        "kernel",
        "in_proj_weight",
        "in_proj_bias",
    )
)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


_Opsets = Mapping[str, int]

_VALUE: dict[int, Callable[[AttributeProto], Any]] = {
    _A.FLOAT: lambda a: a.f,
    _A.INT: lambda a: a.i,
    _A.STRING: lambda a: _text(a.s),
    _A.TENSOR: lambda a: arrays.read(a.t),
    _A.FLOATS: lambda a: tuple(a.floats),
    _A.INTS: lambda a: tuple(a.ints),
    _A.STRINGS: lambda a: tuple(_text(s) for s in a.strings),
    _A.TENSORS: lambda a: tuple(arrays.read(t) for t in a.tensors),
    _A.TYPE_PROTO: lambda a: str(a.tp),
    _A.TYPE_PROTOS: lambda a: tuple(str(t) for t in a.type_protos),
}


def attribute(proto: AttributeProto, opsets: _Opsets) -> Any:
    """int, float, str, tuples of these, a read-only array for a tensor, a `Subgraph` for a body."""
    if proto.type == _A.GRAPH:
        return subgraph(proto.g, opsets)
    if proto.type == _A.GRAPHS:
        return tuple(subgraph(body, opsets) for body in proto.graphs)
    convert = _VALUE.get(proto.type)
    return None if convert is None else convert(proto)


@cache
def since_version(op_type: str, opset: int, domain: str) -> int:
    """The opset in which an operator got the meaning it has in `opset`; `opset` itself for an unknown one."""
    try:
        return onnx.defs.get_schema(op_type, opset, domain).since_version
    except onnx.defs.SchemaError:
        return opset


def node(proto: NodeProto, name: str, opsets: _Opsets, scope: str) -> Node:
    """One operator call; `opsets` is by domain, the standard domain as ''."""
    domain = "" if proto.domain == "ai.onnx" else proto.domain
    return Node(
        name=name,
        op_type=proto.op_type,
        domain=domain,
        version=since_version(proto.op_type, opsets.get(domain, 1), domain),
        inputs=tuple(proto.input),
        outputs=tuple(proto.output),
        attributes={a.name: attribute(a, opsets) for a in proto.attribute},
        scope=scope,
    )


def subgraph(body: GraphProto, opsets: _Opsets) -> Subgraph:
    """The body of an If, Loop or Scan, its Constants among the initializers; a node without a name gets one."""
    values = {tensor.name: arrays.read(tensor) for tensor in body.initializer}
    nodes: list[Node] = []
    for place, inner in enumerate(body.node):
        stored = constant_node_value(inner, inner.output[0]) if inner.op_type == "Constant" else None
        if stored is None:
            nodes.append(node(inner, inner.name or f"{inner.op_type}_{place}", opsets, ""))
        else:
            values[stored.name] = arrays.read(stored)
    return Subgraph(
        captures(body),
        tuple(nodes),
        tuple(value.name for value in body.input),
        tuple(value.name for value in body.output),
        values,
    )


def view(parts: Parts) -> tuple[tuple[Node, ...], Mapping[str, NDArray[Any]], tuple[str, ...]]:
    """What rewriters made of a canonical model: nodes in topological order, constants by name, names of outputs."""
    structure = parts.structure
    opsets = {"" if o.domain == "ai.onnx" else o.domain: o.version for o in structure.opset_import}
    nodes = tuple(node(proto, proto.name, opsets, "") for proto in structure.graph.node)
    weights = {
        name: (parts.read[name] if name in parts.read else arrays.read(weight))
        if isinstance(weight, onnx.TensorProto)
        else weight
        for name, weight in parts.weights.items()
    }
    return nodes, weights, tuple(output.name for output in structure.graph.output)


def scopes(graph: GraphProto) -> dict[str, str]:
    """First output -> module path, for every node of which it is known: 'layer1.0.conv1'.

    From the torch.export exporter's metadata; else a TorchScript node name; else the node's weight's name.
    """
    weights = {tensor.name for tensor in graph.initializer}
    found: dict[str, str] = {}
    for proto in graph.node:
        if not proto.output:
            continue
        scope = _from_metadata(proto) or _from_name(proto.name)
        if not scope:
            scope = next((s for i in proto.input if i in weights and (s := _from_weight(i))), "")
        if scope:
            found[proto.output[0]] = scope
    return found


def _from_metadata(proto: NodeProto) -> str:
    for entry in proto.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes" and len(entry.value) < 10_000:
            try:
                names = ast.literal_eval(entry.value)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                return ""
            if isinstance(names, list) and len(names) >= 2 and isinstance(names[-2], str):
                return names[-2]
    return ""


def _from_name(name: str) -> str:
    """'/layer1/layer1.0/conv1/Conv' -> 'layer1.0.conv1': a part that continues its parent replaces it."""
    parts = name.split("/")
    if parts[0] or len(parts) < 3:
        return ""
    path: list[str] = []
    for part in parts[1:-1]:
        if path and part.startswith(path[-1] + "."):
            path[-1] = part
        elif part:
            path.append(part)
    return ".".join(path)


def _from_weight(name: str) -> str:
    path, _, leaf = name.rpartition(".")
    return path if leaf in _LEAVES else ""
