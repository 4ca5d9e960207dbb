"""Dead nodes out, the rest in an order in which every tensor is made before it is read.

graphsurgeon's own `cleanup` and `toposort` recurse and reorder by level; here the file's order is kept as
far as the links allow, in linear time and at any depth of network.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

from rewriters.surgery import Surgery


def alive(reads: Sequence[Sequence[int]], roots: Sequence[int]) -> set[int]:
    """The nodes that `roots` need, themselves included; `reads[i]` are the nodes that node i reads."""
    found: set[int] = set()
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            stack.extend(reads[node])
    return found


def in_order(reads: Sequence[Sequence[int]]) -> list[int]:
    """Nodes such that each comes behind those it reads, else by number; those on a circle are missing."""
    readers: list[list[int]] = [[] for _ in reads]
    for node, sources in enumerate(reads):
        for source in sources:
            readers[source].append(node)
    waiting = [len(sources) for sources in reads]
    ready = [node for node, count in enumerate(waiting) if not count]  # ascending, so it is a heap
    ordered = []
    while ready:
        node = heapq.heappop(ready)
        ordered.append(node)
        for reader in readers[node]:
            waiting[reader] -= 1
            if not waiting[reader]:
                heapq.heappush(ready, reader)
    return ordered


def clean(surgery: Surgery) -> str:
    """Drop nodes that no output needs and sort the rest; the name of a node on a circle, or ''."""
    graph = surgery.graph
    makers = {id(t): i for i, n in enumerate(graph.nodes) for t in n.outputs if not t.is_empty()}
    needed = alive(
        [_sources(node, makers) for node in graph.nodes],
        [makers[id(t)] for t in graph.outputs if id(t) in makers],
    )
    nodes = [node for i, node in enumerate(graph.nodes) if i in needed]
    makers = {id(t): i for i, n in enumerate(nodes) for t in n.outputs if not t.is_empty()}
    ordered = in_order([_sources(node, makers) for node in nodes])
    if len(ordered) < len(nodes):
        stuck = nodes[min(set(range(len(nodes))) - set(ordered))]
        return str(stuck.name or stuck.op)
    graph.nodes = [nodes[i] for i in ordered]
    return ""


def _sources(node: Any, makers: dict[int, int]) -> list[int]:
    """The numbers of the nodes whose outputs `node` reads, in its bodies too, each once."""
    tensors = list(node.inputs)
    for body in node.subgraphs(recursive=True):
        for inner in body.nodes:
            tensors.extend(inner.inputs)
        tensors.extend(body.outputs)
    return sorted({makers[id(t)] for t in tensors if id(t) in makers})
