"""Layers inside If, Loop and Scan: they stay as they are, which a report should say."""

from __future__ import annotations

from collections.abc import Iterator

from onnxnas.analysis.width import CARRIERS
from onnxnas.graph import Graph
from onnxnas.types import Frozen, Node, Subgraph


def find_bodies(graph: Graph) -> tuple[Frozen, ...]:
    """One entry for each node of `graph` whose bodies, through all levels, hold layers with weights."""
    counted = ((node, sum(inner.op_type in CARRIERS for inner in _inside(node))) for node in graph.nodes)
    return tuple(
        Frozen(
            node.name,
            f"{count} layer{'s' if count > 1 else ''}",
            f"inside a body of {node.op_type}, which is carried along as it is",
        )
        for node, count in counted
        if count
    )


def _inside(node: Node) -> Iterator[Node]:
    """The nodes of the bodies of `node`, through all levels."""
    for value in node.attributes.values():
        for body in value if isinstance(value, tuple) else (value,):
            if isinstance(body, Subgraph):
                for inner in body.nodes:
                    yield inner
                    yield from _inside(inner)
