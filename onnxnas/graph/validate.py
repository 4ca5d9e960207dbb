"""What must hold of a model before any native code sees it: names, references, order, sizes.

Pure Python over the protobuf, linear in its size. Checked here: versions; caps on nodes, nesting, rank
and names; every value made once; every value read made somewhere; no cycle; data as long as shapes say.
Nodes out of order are put in order (stable) and a note is made of it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from onnxnas.errors import ModelError
from onnxnas.graph import tensors
from onnxnas.graph.limits import Limits

_STANDARD = ("", "ai.onnx")
_TENSORS = (AttributeProto.TENSOR, AttributeProto.TENSORS)


def describe(node: NodeProto) -> str:
    """A node as a person would find it: its operator and name, or its first output."""
    return f"{node.op_type} {(node.name or next(iter(node.output), ''))[:120]!r}"


def subgraphs(node: NodeProto) -> list[GraphProto]:
    """The bodies in a node's attributes."""
    found = []
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            found.append(attribute.g)
        elif attribute.type == AttributeProto.GRAPHS:
            found.extend(attribute.graphs)
    return found


def captures(graph: GraphProto) -> frozenset[str]:
    """The outer values that a body reads, through all levels below it."""
    made = {i.name for i in graph.input} | {t.name for t in graph.initializer}
    read: set[str] = {o.name for o in graph.output}
    for node in graph.node:
        made.update(node.output)
        read.update(node.input)
        for body in subgraphs(node):
            read.update(captures(body))
    return frozenset(read - made - {""})


def check(model: ModelProto, limits: Limits) -> list[str]:
    """Judge a model and put its nodes in order. Returns notes for the user; raises ModelError."""
    _versions(model, limits)
    graph = model.graph
    count = sum(1 for _ in _all_nodes(graph, limits))
    for function in model.functions:
        count += len(function.node)
    if count > limits.nodes:
        raise ModelError(f"{count:,} nodes; {limits.nodes:,} at most")
    if not graph.output:
        raise ModelError("the graph has no outputs")
    for value in graph.input:
        if value.type.WhichOneof("value") not in ("tensor_type", None):
            raise ModelError(
                f"input {value.name!r} is a {value.type.WhichOneof('value')}; only tensors are supported"
            )
    notes: list[str] = []
    _graph(graph, frozenset(), limits, notes)
    return notes


def _versions(model: ModelProto, limits: Limits) -> None:
    if model.ir_version > limits.newest_ir:
        raise ModelError(
            f"IR version {model.ir_version} is newer than {limits.newest_ir}, the newest that is known here; "
            "update onnx or export for an older one"
        )
    standard = [o.version for o in model.opset_import if o.domain in _STANDARD]
    if not standard:
        raise ModelError(
            "the model does not say which opset it uses (no opset_import for the standard domain)"
        )
    if len(standard) > 1 and len(set(standard)) > 1:
        raise ModelError(f"the model uses several versions of the standard opset: {standard}")
    oldest, newest = limits.oldest_opset, limits.newest_opset
    if not oldest <= standard[0] <= newest:
        raise ModelError(f"opset {standard[0]} is not supported; export for opset {oldest} to {newest}")


def _all_nodes(graph: GraphProto, limits: Limits) -> Iterator[NodeProto]:
    """All nodes at every level. Raises ModelError where bodies are nested too deep."""
    stack = [(graph, 0)]
    while stack:
        current, depth = stack.pop()
        if depth > limits.depth:
            raise ModelError(f"bodies of If, Loop or Scan nested more than {limits.depth} deep")
        for node in current.node:
            yield node
            stack.extend((body, depth + 1) for body in subgraphs(node))


def _graph(graph: GraphProto, outer: frozenset[str], limits: Limits, notes: list[str]) -> None:
    makers: dict[str, int] = {}  # value -> index of its node, -1 for inputs and initializers
    for value in graph.input:
        _name(value.name, "an input", limits)
        if value.name in makers:
            raise ModelError(f"two inputs are called {value.name!r}")
        makers[value.name] = -1
    if graph.sparse_initializer:
        raise ModelError("sparse initializers are not supported; store the weights dense")
    seen: set[str] = set()
    for tensor in graph.initializer:
        _name(tensor.name, "an initializer", limits)
        if tensor.name in seen:
            raise ModelError(f"two initializers are called {tensor.name!r}")
        seen.add(tensor.name)
        makers[tensor.name] = -1
        tensors.check(tensor, limits)
        if outer and tensors_external(tensor):
            raise ModelError(f"tensor {tensor.name!r}: external data inside a body is not supported")
    for index, node in enumerate(graph.node):
        _texts(node)
        for name in node.output:
            if not name:
                continue
            _name(name, describe(node), limits)
            if name in makers:
                other = makers[name]
                by = describe(graph.node[other]) if other >= 0 else "an input or initializer"
                raise ModelError(f"value {name!r} is made twice: by {by} and by {describe(node)}")
            makers[name] = index
        _attributes(node, limits)
    needs = [_needs(node, index, makers, outer) for index, node in enumerate(graph.node)]
    order = _order(graph.node, needs)
    if order is not None:
        nodes = []
        for index in order:
            node = NodeProto()
            node.CopyFrom(graph.node[index])
            nodes.append(node)
        del graph.node[:]
        graph.node.extend(nodes)
        notes.append(f"the nodes of graph {graph.name!r} were not in topological order; they were sorted")
    for output in graph.output:
        if output.name not in makers and output.name not in outer:
            raise ModelError(f"graph output {output.name!r} is made by no node")
    inner = outer | makers.keys()
    for node in graph.node:
        for body in subgraphs(node):
            _graph(body, inner, limits, notes)


def tensors_external(tensor: TensorProto) -> bool:
    return tensor.data_location == TensorProto.EXTERNAL


def _texts(node: NodeProto) -> None:
    """Raises ModelError where a text of a node is not UTF-8: the protobuf library hands it out as bytes."""
    for text in (node.op_type, node.name, node.domain, *node.input, *node.output):
        if not isinstance(text, str):
            raise ModelError(f"a node has a name that is not UTF-8: {text!r}")


def _name(name: str, of: str, limits: Limits) -> None:
    if not isinstance(name, str):
        raise ModelError(f"{of} has a name that is not UTF-8: {name!r}")
    if not name:
        raise ModelError(f"{of} has an empty name")
    if len(name) > limits.name_length:
        raise ModelError(f"{of} has a name of {len(name):,} characters; {limits.name_length:,} at most")


def _attributes(node: NodeProto, limits: Limits) -> None:
    seen: set[str] = set()
    for attribute in node.attribute:
        where = f"{describe(node)}: attribute {attribute.name[:80]!r}"
        if attribute.name in seen:
            raise ModelError(f"{where} is given twice")
        seen.add(attribute.name)
        if attribute.ref_attr_name:
            raise ModelError(f"{where} refers to a function's attribute outside a function")
        if attribute.type in (AttributeProto.SPARSE_TENSOR, AttributeProto.SPARSE_TENSORS):
            raise ModelError(f"{where} is a sparse tensor, which is not supported")
        for tensor in (attribute.t, *attribute.tensors) if attribute.type in _TENSORS else ():
            tensors.check(tensor, limits)
            if tensors_external(tensor):
                raise ModelError(f"{where} is external data; only initializers can be")


def _needs(node: NodeProto, index: int, makers: dict[str, int], outer: frozenset[str]) -> set[int]:
    """The indices of the nodes that must come before. Raises ModelError for a value that nothing makes."""
    names = set(node.input)
    for body in subgraphs(node):
        names |= captures(body)
    names.discard("")
    found = set()
    for name in names:
        maker = makers.get(name)
        if maker is None:
            if name not in outer:
                raise ModelError(
                    f"{describe(node)} reads {name[:200]!r}, but no input, initializer or node has that name"
                )
        elif maker == index:
            raise ModelError(f"the graph has a cycle: {describe(node)} reads its own output {name!r}")
        elif maker >= 0:
            found.add(maker)
    return found


def _order(nodes: Sequence[NodeProto], needs: list[set[int]]) -> list[int] | None:
    """A topological order, None when the nodes are in one already. Raises ModelError for a cycle."""
    if all(max(before, default=-1) < index for index, before in enumerate(needs)):
        return None
    users: list[list[int]] = [[] for _ in needs]
    for index, before in enumerate(needs):
        for other in before:
            users[other].append(index)
    missing = [len(before) for before in needs]
    ready = [index for index, n in enumerate(missing) if n == 0]
    order = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for user in users[index]:
            missing[user] -= 1
            if missing[user] == 0:
                heapq.heappush(ready, user)
    if len(order) < len(needs):
        raise ModelError("the graph has a cycle: " + " <- ".join(_cycle(nodes, needs, set(order))))
    return order


def _cycle(nodes: Sequence[NodeProto], needs: list[set[int]], done: set[int]) -> list[str]:
    """The nodes of one cycle, at most eight of them."""
    index = next(i for i in range(len(needs)) if i not in done)
    walk: list[int] = []
    while index not in walk:
        walk.append(index)
        index = min(needs[index] - done)
    cycle = [*walk[walk.index(index) :], index]
    names = [describe(nodes[i]) for i in cycle]
    return names if len(names) <= 8 else [*names[:6], "...", names[-1]]
