"""A graph as onnx-graphsurgeon imports it, lent to one surgery after the other.

The import makes some thousand objects and takes longer than everything else in the cutting of a sub-network but
the copying of weights; a search cuts thousands out of the same graph. So what a surgery changes is put back
afterwards, which takes a tenth of the time.
"""

from __future__ import annotations

from typing import Any

import onnx
import onnx_graphsurgeon as gs

from rewriters import arrays
from rewriters.parts import Parts
from rewriters.skeleton import strip


class Opened:
    """An imported graph, and what is known of it before any edit.

    Attributes:
        graph: with a Constant for each weight, which has its shape and element type but no numbers.
        nodes: by name; several may have the same.
        tensors: by name, without absent ones.
        protos: what the file says of each node of the main graph, by `id`.
        bodies: the graphs inside a node at any depth, by its `id`; for those that have some.

    Raises:
        ValueError: graphsurgeon cannot represent the model.
    """

    def __init__(self, parts: Parts) -> None:
        self.graph: Any = _imported(parts)
        self.nodes: dict[str, list[Any]] = {}
        self.protos: dict[int, onnx.NodeProto] = {}
        self.bodies: dict[int, list[Any]] = {}
        for node, proto in zip(self.graph.nodes, parts.structure.graph.node, strict=True):
            self.protos[id(node)] = proto
            self.nodes.setdefault(node.name, []).append(node)
            if any(isinstance(value, gs.Graph) for value in node.attrs.values()):
                self.bodies[id(node)] = list(node.subgraphs(recursive=True))
        graphs = [self.graph, *(body for inside in self.bodies.values() for body in inside)]
        nodes = [node for graph in graphs for node in graph.nodes]
        ends = [tensor for graph in graphs for tensor in (*graph.inputs, *graph.outputs)]
        tensors = {id(t): t for t in (*(t for n in nodes for t in (*n.inputs, *n.outputs)), *ends)}
        self.tensors = self._named(tensors.values(), parts)
        self._things = [
            (thing, type(thing), dict(vars(thing))) for thing in (*graphs, *nodes, *tensors.values())
        ]
        held = [value for _, _, fields in self._things for value in fields.values()]
        self._lists = [(value, list(value)) for value in held if isinstance(value, list)]
        self._dicts = [(value, dict(value)) for value in held if isinstance(value, dict)]

    def _named(self, tensors: Any, parts: Parts) -> dict[str, Any]:
        """Tensors of the main graph, and the initializers that only a body reads."""
        found = {t.name: t for t in tensors if isinstance(t, gs.Constant) and t.name in parts.weights}
        found.update(self.graph.tensors())
        found.update((t.name, t) for t in (*self.graph.inputs, *self.graph.outputs))
        return found

    def restore(self) -> None:
        """Put everything back as it was imported; what a surgery added is forgotten."""
        for thing, kind, fields in self._things:
            thing.__class__ = kind
            state = vars(thing)
            state.clear()
            state.update(fields)
        for values, content in self._lists:
            list.__setitem__(values, slice(None), content)  # graphsurgeon's lists would tell the other end
        for attributes, known in self._dicts:
            attributes.clear()
            attributes.update(known)


def _imported(parts: Parts) -> Any:
    skeleton = strip(parts.structure, initializers=False)
    del skeleton.functions[:]  # taken over as they are
    for name, weight in parts.weights.items():
        kind, shape = arrays.form(weight)
        skeleton.graph.initializer.add(name=name, data_type=kind, dims=shape)
    try:
        return gs.import_onnx(skeleton)
    except Exception as problem:
        raise ValueError(f"onnx-graphsurgeon cannot open the model: {problem}") from problem
