"""A space of one network, for training a graph as it is."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from onnxnas.graph import Graph
from onnxnas.types import Subnet
from rewriters.edits import Edit


class PlannedGraph(Protocol):
    """What a super-network needs of a search space: a graph, and the edits that make a sub-network of it."""

    @property
    def graph(self) -> Graph: ...

    def plan(self, subnet: Subnet) -> tuple[Edit, ...]: ...


class FixedSpace:
    """Only the graph itself: every plan is empty."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    @property
    def graph(self) -> Graph:
        return self._graph

    def plan(self, subnet: Subnet) -> tuple[Edit, ...]:
        """No edits: nothing can be chosen."""
        return ()

    def maximal(self) -> Subnet:
        """The network."""
        return Subnet()

    def minimal(self) -> Subnet:
        """The network."""
        return Subnet()

    def random(self, rng: np.random.Generator, elastic: frozenset[str] = frozenset()) -> Subnet:
        """The network."""
        return Subnet()
