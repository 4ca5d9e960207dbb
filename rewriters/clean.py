"""Dead nodes out, the rest in an order in which every tensor is made before it is read.

graphsurgeon's own `cleanup` and `toposort` recurse and reorder by level; here the file's order is kept as
far as the links allow, in linear time and at any depth of network.
"""

from __future__ import annotations

import heapq
from typing import Any

from rewriters.surgery import Surgery


def clean(surgery: Surgery) -> str:
    """Drop nodes that no output needs and sort the rest; the name of a node on a circle, or ''."""
    graph = surgery.graph
    index = {id(node): number for number, node in enumerate(graph.nodes)}
    makers: dict[int, Any] = {id(t): n for n in graph.nodes for t in n.outputs if not t.is_empty()}
    reads = {id(node): _sources(node, makers) for node in graph.nodes}

    alive: set[int] = set()
    stack = [makers[id(t)] for t in graph.outputs if id(t) in makers]
    while stack:
        node = stack.pop()
        if id(node) not in alive:
            alive.add(id(node))
            stack.extend(reads[id(node)])

    nodes = [node for node in graph.nodes if id(node) in alive]
    waiting = {id(node): len(reads[id(node)]) for node in nodes}
    readers: dict[int, list[Any]] = {id(node): [] for node in nodes}
    for node in nodes:
        for source in reads[id(node)]:
            readers[id(source)].append(node)
    ready = [index[id(node)] for node in nodes if not waiting[id(node)]]
    heapq.heapify(ready)
    ordered = []
    while ready:
        node = graph.nodes[heapq.heappop(ready)]
        ordered.append(node)
        for reader in readers[id(node)]:
            waiting[id(reader)] -= 1
            if not waiting[id(reader)]:
                heapq.heappush(ready, index[id(reader)])
    if len(ordered) < len(nodes):
        return next(str(node.name or node.op) for node in nodes if waiting[id(node)])
    graph.nodes = ordered
    return ""


def _sources(node: Any, makers: dict[int, Any]) -> list[Any]:
    """The nodes whose outputs `node` reads, in its bodies too, each once."""
    tensors = list(node.inputs)
    for body in node.subgraphs(recursive=True):
        for inner in body.nodes:
            tensors.extend(inner.inputs)
        tensors.extend(body.outputs)
    found = {id(makers[id(t)]): makers[id(t)] for t in tensors if id(t) in makers}
    found.pop(id(node), None)
    return list(found.values())
