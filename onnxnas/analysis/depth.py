"""Elastic depth: residual blocks, and the transformer's attention and feed-forward blocks.

A block ends at an addition J with a shortcut: one operand is the entry tensor e (or e through
elementwise operators with constants), the other one is computed from e. The block's nodes are those
that J post-dominates, back to e: every path from them to a graph output runs through J, so that all of
them are dead once J's readers read e instead. A node on the way from e to J that something else reads
as well is a leak, and the block is refused. Tensors from elsewhere (an attention mask) may come in.

A squeeze-and-excite branch ends in a multiplication and is no block. Of nested blocks the outer one
stays, unless it holds several blocks in a row: then it is a stage, not a block, and they stay.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from onnxnas.graph import Graph
from onnxnas.types import Block, BlockKind, Frozen, Node

ACTIVATIONS = {
    "Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "Gelu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish",
    "Tanh", "Mish", "Softplus", "Swish", "ThresholdedRelu", "FastGelu", "QuickGelu",
}  # fmt: skip
NORMALISATIONS = {
    "BatchNormalization", "LayerNormalization", "RMSNormalization", "InstanceNormalization", "GroupNormalization",
}  # fmt: skip
SCALINGS = {"Mul", "Add", "Sub", "Div", "Cast"}
WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "LSTM", "GRU", "RNN"}
ATTENTION = {"Attention", "MultiHeadAttention", "GroupQueryAttention"}
PRODUCTS = ("MatMul", "Gemm", "Einsum")
SHORTCUT_STEPS = 3
SEARCHED = 5000  # nodes looked at before a possible leak counts as one


@dataclass(frozen=True)
class _Candidate:
    entry: str
    exit: str
    nodes: frozenset[str]
    order: int


def find_blocks(graph: Graph) -> tuple[tuple[Block, ...], tuple[Frozen, ...]]:
    """Skippable blocks in topological order, numbered, with their chain; and what was refused."""
    position = {node.name: i for i, node in enumerate(graph.nodes)}
    candidates: list[_Candidate] = []
    refusals: list[Frozen] = []
    for node in graph.nodes:
        if node.op_type not in ("Add", "Sum") or len(node.inputs) != 2:
            continue
        found = _at_join(graph, node, position)
        if isinstance(found, _Candidate):
            candidates.append(found)
        elif found is not None:
            refusals.append(found)
    kept = _without_nested(candidates)
    blocks: list[Block] = []
    chain = -1
    for i, c in enumerate(kept):
        if not blocks or blocks[-1].exit != c.entry:
            chain += 1
        nodes = tuple(sorted(c.nodes, key=position.__getitem__))
        kind = _kind(graph, nodes)
        blocks.append(Block(f"b{i}", c.entry, c.exit, nodes, kind, chain, _name(graph, nodes)))
    return tuple(blocks), tuple(refusals)


def _at_join(graph: Graph, join: Node, position: dict[str, int]) -> _Candidate | Frozen | None:
    """The block that ends at this addition, why there is none though there is a shortcut, or None."""
    shape = graph.tensors[join.outputs[0]].shape
    refusal: Frozen | None = None
    for i in (0, 1):
        shortcut, branch = join.inputs[i], join.inputs[1 - i]
        for entry, between in _shortcuts(graph, shortcut):
            producer = graph.producer(branch)
            if producer is None or graph.tensors[entry].shape != shape or shape is None:
                continue
            cone, sides = _cone(graph, join, producer, entry, position)
            leak = _leak(graph, entry, sides, position)
            if leak:
                refusal = Frozen(join.name, "block", f"'{leak}' inside it is read elsewhere too")
                continue
            if not any(entry in graph.node(n).inputs for n in cone):
                continue
            if not any(graph.node(n).op_type in WEIGHTED for n in cone) and not _mixes(graph, cone):
                continue
            if entry in graph.inputs:
                refusal = Frozen(join.name, "block", "it is the whole network behind its input")
                continue
            tail, exit_tensor = _tail(graph, join, entry)
            if exit_tensor in graph.outputs and entry in graph.outputs:
                refusal = Frozen(join.name, "block", "both of its ends are graph outputs")
                continue
            nodes = frozenset({join.name, *between, *cone, *tail})
            return _Candidate(entry, exit_tensor, nodes, position[join.name])
    return refusal


def _mixes(graph: Graph, cone: Iterable[str]) -> bool:
    """A block without weights of its own still is one when it mixes positions (pooling as token mixer)."""
    return any("Pool" in graph.node(n).op_type for n in cone)


def _shortcuts(graph: Graph, tensor: str) -> list[tuple[str, tuple[str, ...]]]:
    """`tensor` and what it is made of by elementwise operators with constants, with the nodes between."""
    found: list[tuple[str, tuple[str, ...]]] = []
    nodes: tuple[str, ...] = ()
    for _ in range(SHORTCUT_STEPS):
        if tensor in graph.initializers:
            break
        found.append((tensor, nodes))
        producer = graph.producer(tensor)
        if producer is None or producer.op_type not in SCALINGS or len(graph.consumers(tensor)) != 1:
            break
        data = [x for x in producer.inputs if x not in graph.initializers]
        if len(data) != 1 or tensor in graph.outputs:
            break
        tensor, nodes = data[0], (*nodes, producer.name)
    return found


def _cone(
    graph: Graph, join: Node, start: Node, entry: str, position: dict[str, int]
) -> tuple[set[str], dict[str, str]]:
    """Nodes that `join` post-dominates, back to `entry`; and the tensors that come in beside it (-> reader)."""
    inside: set[str] = set()
    sides: dict[str, str] = {}
    heap = [(-position[start.name], start.name)]
    seen = {start.name}
    outputs = set(graph.outputs)
    while heap:
        _, name = heapq.heappop(heap)
        node = graph.node(name)
        readers = (r.name for out in node.outputs for r in graph.consumers(out))
        if outputs & set(node.outputs) or not all(r in inside or r == join.name for r in readers):
            for out in node.outputs:
                sides[out] = name
            continue
        inside.add(name)
        for tensor in node.inputs:
            producer = graph.producer(tensor) if tensor and tensor != entry else None
            if producer is not None and producer.name not in seen:
                seen.add(producer.name)
                heapq.heappush(heap, (-position[producer.name], producer.name))
    return inside, sides


def _leak(graph: Graph, entry: str, sides: dict[str, str], position: dict[str, int]) -> str:
    """A tensor that comes in from the side although it is computed from `entry`; '' if there is none.

    What only depends on the size of tensors (a mask, relative positions) is no leak: it stays when the block goes.
    """
    source = graph.producer(entry)
    first = -1 if source is None else position[source.name]
    for tensor, name in sides.items():
        if source is not None and name == source.name:
            continue
        todo, seen = [name], {name}
        while todo:
            node = graph.node(todo.pop())
            if node.op_type in ("Shape", "Size"):
                continue
            if entry in node.inputs or len(seen) > SEARCHED:
                return tensor
            for x in node.inputs:
                producer = graph.producer(x) if x else None
                if producer is not None and producer.name not in seen and position[producer.name] > first:
                    seen.add(producer.name)
                    todo.append(producer.name)
    return ""


def _tail(graph: Graph, join: Node, entry: str) -> tuple[tuple[str, ...], str]:
    """What belongs to the block behind the addition: an activation; a normalisation where blocks begin with one."""
    nodes: list[str] = []
    tensor = join.outputs[0]
    before = graph.producer(entry)
    while tensor not in graph.outputs and len(graph.consumers(tensor)) == 1:
        reader = graph.consumers(tensor)[0]
        if any(x and x != tensor and x not in graph.initializers for x in reader.inputs):
            break
        same = before is not None and reader.op_type == before.op_type
        if reader.op_type not in ACTIVATIONS and not (reader.op_type in NORMALISATIONS and same):
            break
        nodes.append(reader.name)
        tensor = reader.outputs[0]
    return tuple(nodes), tensor


def _without_nested(candidates: list[_Candidate]) -> list[_Candidate]:
    """The outer of nested blocks, unless it holds two or more; in topological order."""
    by_size = sorted(candidates, key=lambda c: (-len(c.nodes), c.order))
    inner: dict[int, list[_Candidate]] = {}
    owner: dict[str, list[_Candidate]] = {}
    for c in by_size:
        for name in c.nodes:
            owner.setdefault(name, []).append(c)
    for c in candidates:
        for outer in owner[next(iter(c.nodes))]:
            if outer is not c and c.nodes < outer.nodes:
                inner.setdefault(id(outer), []).append(c)
    kept: list[_Candidate] = []
    taken: set[str] = set()
    for c in by_size:
        if len(_outermost(inner.get(id(c), []))) >= 2 or c.nodes & taken:
            continue
        kept.append(c)
        taken |= c.nodes
    return sorted(kept, key=lambda c: c.order)


def _outermost(candidates: list[_Candidate]) -> list[_Candidate]:
    return [c for c in candidates if not any(c.nodes < other.nodes for other in candidates)]


def attends(graph: Graph, nodes: Collection[Node]) -> bool:
    """Whether `nodes` weigh positions by each other: fused attention, or softmax and a product of activations."""
    types = {node.op_type for node in nodes}
    return bool(types & ATTENTION) or (
        "Softmax" in types
        and any(n.op_type in PRODUCTS and not graph.initializers.keys() & set(n.inputs) for n in nodes)
    )


def _kind(graph: Graph, nodes: tuple[str, ...]) -> BlockKind:
    members = [graph.node(n) for n in nodes]
    types = {m.op_type for m in members}
    products = [m for m in members if m.op_type in PRODUCTS]
    if attends(graph, members):
        return "attention"
    if not types & {"Conv", "ConvTranspose"} and len(products) >= 2:
        return "feed_forward"
    return "residual"


def _name(graph: Graph, nodes: tuple[str, ...]) -> str:
    """The module path that the block's weighted nodes have in common."""
    paths = [
        graph.node(n).scope.split(".")
        for n in nodes
        if graph.node(n).scope and graph.node(n).op_type in WEIGHTED
    ]
    common: list[str] = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return ".".join(common)
