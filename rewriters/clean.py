"""Dead nodes out, the rest in an order in which every tensor is made before it is read.

graphsurgeon's own `cleanup` and `toposort` recurse and reorder by level; here the file's order is kept as
far as the links allow, in linear time and at any depth of network.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

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
    makers = {id(t): i for i, node in enumerate(graph.nodes) for t in node.outputs}
    reads = [
        sorted({makers[id(t)] for t in surgery.read_by(node) if id(t) in makers}) for node in graph.nodes
    ]
    needed = alive(reads, [makers[id(t)] for t in graph.outputs if id(t) in makers])
    if all(sources[-1] < i for i, sources in enumerate(reads) if sources):
        ordered = sorted(needed)
    else:
        ordered = [i for i in in_order(reads) if i in needed]
    if len(ordered) < len(needed):
        stuck = graph.nodes[min(needed.difference(ordered))]
        return str(stuck.name or stuck.op)
    graph.nodes = [graph.nodes[i] for i in ordered]
    return ""
