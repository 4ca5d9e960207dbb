"""`Graph`: the canonical model as plain values, with the few questions that everything else asks of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxnas.types import Node, TensorInfo
from rewriters.parts import Parts

if TYPE_CHECKING:
    import networkx as nx


@dataclass(frozen=True, eq=False, repr=False)
class Graph:
    """A validated model in canonical form; nothing in it is ever changed.

    `nodes` is in topological order. `tensors` has every value: inputs, activations, outputs and
    initializers. `inputs` are the real ones, without initializers. `digest` is the SHA-256 (hex) of what
    was loaded. `source` says where from: path, producer, ir_version, inputs and outputs as declared,
    notes. `model` is the canonical protobuf: read it, never write it.
    """

    nodes: tuple[Node, ...]
    tensors: Mapping[str, TensorInfo]
    initializers: Mapping[str, NDArray[Any]]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    opset: int
    digest: str
    source: Mapping[str, Any]
    model: onnx.ModelProto

    def __repr__(self) -> str:
        name = self.source.get("path") or self.digest[:12]
        return f"<Graph {name}: {len(self.nodes)} nodes, opset {self.opset}>"

    @cached_property
    def values_per_sample(self) -> int:
        """Elements of all known values but the weights, with the inputs as they are bound: for one sample mostly."""
        return sum(
            int(np.prod(info.shape))
            for name, info in self.tensors.items()
            if info.shape is not None and name not in self.initializers
        )

    @cached_property
    def parts(self) -> Parts:
        """The model with its weights apart, for rewriters: they open its graph once and use it again."""
        return Parts.of(self.model, self.initializers)

    @cached_property
    def _producers(self) -> dict[str, Node]:
        return {name: node for node in self.nodes for name in node.outputs if name}

    @cached_property
    def _consumers(self) -> dict[str, tuple[Node, ...]]:
        found: dict[str, dict[str, Node]] = {}
        for node in self.nodes:
            for name in node.reads:
                if name:
                    found.setdefault(name, {})[node.name] = node
        return {name: tuple(nodes.values()) for name, nodes in found.items()}

    @cached_property
    def _by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    def producer(self, tensor: str) -> Node | None:
        """The node that makes a tensor; None for inputs and initializers."""
        return self._producers.get(tensor)

    def consumers(self, tensor: str) -> tuple[Node, ...]:
        """The nodes that read a tensor, in order, each once; a body's captures count as reading."""
        return self._consumers.get(tensor, ())

    def node(self, name: str) -> Node:
        """The node of that name. Raises KeyError."""
        return self._by_name[name]

    def networkx(self) -> nx.DiGraph:
        """A new directed graph of node names in topological order, an edge for each tensor handed on.

        An edge's attribute `tensors` is the tuple of tensor names on it; a node's attribute `node` the Node.
        """
        import networkx as nx

        view = nx.DiGraph()
        for node in self.nodes:
            view.add_node(node.name, node=node)
        for node in self.nodes:
            edges: dict[str, list[str]] = {}
            for name in dict.fromkeys(node.reads):
                maker = self._producers.get(name)
                if maker is not None:
                    edges.setdefault(maker.name, []).append(name)
            for maker_name, names in edges.items():
                view.add_edge(maker_name, node.name, tensors=tuple(names))
        return view


def dtype_name(dtype: np.dtype[Any] | None) -> str | None:
    """'float32' and so on; 'string' for strings, None for an unknown type."""
    if dtype is None:
        return None
    return "string" if dtype == np.dtype(object) else dtype.name
