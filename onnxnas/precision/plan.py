"""Where the numbers of a network are rounded to 8 bits.

A node that computes with 8-bit numbers reads rounded tensors. What it makes is rounded too, for whoever reads it, so
that a runtime hands integers on; what a float node makes is rounded only for those that compute with integers.

    Conv -> Relu -> t        t is rounded, behind the Relu that nobody looks in front of
    t -> MaxPool -> u        u has t's numbers, and is rounded as t is
    HardSwish -> v -> Conv   v is rounded for the convolution
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from onnxnas.precision.roles import Role, role, sums_over
from onnxnas.types import Node

EVERY = "*"  # in the precision of a sub-network: of nodes that it does not name
FLOATS = "fp32"  # what the original has
INT8 = "int8"


@dataclass(frozen=True)
class Point:
    """A tensor that is rounded: by the range of tensor `source`, for `readers` (nodes; None: for everybody).

    `apart` are those that keep their weights in floats, see `rewriters.Round`.
    """

    tensor: str
    source: str
    readers: tuple[str, ...] | None = None
    apart: tuple[tuple[str, int, int], ...] = ()


@dataclass(frozen=True)
class Plan:
    """`weighted`: the nodes whose weights have 8 bits, by name what they are; the tensors that are rounded."""

    weighted: Mapping[str, Role]
    points: tuple[Point, ...]

    @property
    def sources(self) -> tuple[str, ...]:
        """The tensors whose ranges must be known."""
        return tuple(dict.fromkeys(point.source for point in self.points))

    def source(self, tensor: str) -> str:
        """By whose range a tensor is rounded that an 8-bit node reads."""
        return next(point.source for point in self.points if point.tensor == tensor)


def plan(
    nodes: Sequence[Node],
    constants: Mapping[str, NDArray[Any]],
    outputs: Sequence[str],
    precision: Mapping[str, str],
) -> Plan:
    """The plan for nodes in topological order; `precision` is that of a sub-network, by node or `EVERY`."""
    view = _View(nodes, constants, frozenset(outputs))
    wanted = precision.get(EVERY)
    for node in nodes:
        view.place(node, precision.get(node.name, wanted) == INT8)
    return Plan(view.weighted, view.points())


@dataclass
class _View:
    nodes: Sequence[Node]
    constants: Mapping[str, NDArray[Any]]
    outputs: frozenset[str]
    weighted: dict[str, Role] = field(default_factory=dict)
    rounded: dict[str, str] = field(default_factory=dict)  # for everybody: tensor -> whose range
    reads: dict[str, list[str]] = field(default_factory=dict)  # tensor -> the 8-bit nodes that read it

    def __post_init__(self) -> None:
        self.readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.reads):
                self.readers.setdefault(name, []).append(node)

    def place(self, node: Node, wanted: bool) -> None:
        """Say what a node does, all that is before it being known."""
        what = role(node, self._constants(node))
        activations = [name for name in node.inputs if name and name not in self.constants]
        if what is None or not activations:
            return
        if what.kind == "moved" and activations[0] in self.rounded:
            self.rounded[node.outputs[0]] = self.rounded[activations[0]]
        elif wanted and what.kind == "weighted":
            self.weighted[node.name] = what
            self._integers(node, activations, rounds=node.op_type == "Conv")
        elif wanted and what.kind == "computed" and self._between(node, activations):
            self._integers(node, activations, rounds=True)

    def points(self) -> tuple[Point, ...]:
        whole = [Point(t, source, None, self._apart(t)) for t, source in self.rounded.items()]
        some = {t: names for t, names in self.reads.items() if t not in self.rounded}
        return (*whole, *(Point(tensor, tensor, tuple(names)) for tensor, names in some.items()))

    def _between(self, node: Node, activations: Sequence[str]) -> bool:
        """Whether there are 8-bit numbers for a node to compute with; an output of the graph is not rounded for it."""
        return node.outputs[0] not in self.outputs and any(name in self.rounded for name in activations)

    def _apart(self, tensor: str) -> tuple[tuple[str, int, int], ...]:
        """The readers of a rounded tensor that multiply it by floats, with the axis they sum over and its length."""
        found = []
        for node in self.readers.get(tensor, []):
            if node.name not in self.weighted and node.inputs[0] == tensor:
                summed = sums_over(node, self._constants(node))
                found += [(node.name, *summed)] if summed is not None else []
        return tuple(found)

    def _integers(self, node: Node, activations: Sequence[str], *, rounds: bool) -> None:
        for name in dict.fromkeys(activations):
            self.reads.setdefault(name, []).append(node.name)
        if rounds:
            end = self._behind_clamp(node.outputs[0])
            self.rounded[end] = end

    def _behind_clamp(self, tensor: str) -> str:
        """`tensor`, or what a clamp makes of it that alone reads it."""
        readers = self.readers.get(tensor, [])
        if len(readers) == 1 and tensor not in self.outputs:
            what = role(readers[0], self._constants(readers[0]))
            if what is not None and what.kind == "clamped" and readers[0].inputs[0] == tensor:
                return readers[0].outputs[0]
        return tensor

    def _constants(self, node: Node) -> dict[int, NDArray[Any]]:
        return {i: self.constants[name] for i, name in enumerate(node.inputs) if name in self.constants}
