"""What the project asks about an operator, answered in one place.

`flow`   reads the labels of a node's inputs and sets those of its outputs (`Flow`).
`edits`  says what must change in the node when channels go (`Kept`).
`macs`   counts multiply-accumulates from shapes.
`torch`  makes the torch function of one node; torch is imported inside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnxnas.ops.channels import Factor, Ids, Labels, Layout, at
from onnxnas.types import Node, Shape
from rewriters.edits import Edit

if TYPE_CHECKING:
    from torch import Tensor

Shapes = Callable[[str], Shape | None]


class BatchNorm(Protocol):
    """How BatchNormalization behaves now: training, evaluating or measuring statistics."""

    def batch_norm(
        self, node: str, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor, epsilon: float, /
    ) -> Tensor: ...


# Tensors of the node's inputs, None for absent ones, to its output or a tuple of its outputs.
TorchFunction = Callable[[Sequence[Any]], Any]
TorchFactory = Callable[[Node, Mapping[int, NDArray[Any]], BatchNorm], TorchFunction]


class Kept(Protocol):
    """What a sub-network keeps, seen from one operator."""

    def mask(self, tensor: str, axis: int) -> NDArray[np.bool_] | None:
        """True at the positions that stay; None when all do."""

    def shape(self, tensor: str) -> Shape | None:
        """The shape in the original network."""

    def kept_shape(self, tensor: str) -> Shape | None:
        """The shape in the sub-network."""

    def constant(self, tensor: str) -> NDArray[Any] | None:
        """The value of an initializer (of the original network), or None."""


class Flow:
    """The labels of the tensors seen so far, as one node's flow function reads and sets them."""

    def __init__(
        self,
        labels: Labels,
        shapes: Shapes,
        constant: Callable[[str], NDArray[Any] | None],
        is_constant: Callable[[str], bool],
        producer: Callable[[str], Node | None],
    ) -> None:
        self.labels = labels
        self.shape = shapes
        self.constant = constant
        self.is_constant = is_constant
        self.producer = producer
        self.layouts: dict[str, Layout] = {}
        self.parameters: dict[tuple[str, int], Ids] = {}
        self.bound_by: dict[tuple[str, int], set[str]] = {}

    def layout(self, tensor: str) -> Layout:
        """Labels of an activation; () when nothing in it can change."""
        return self.layouts.get(tensor, ())

    def data(self, tensor: str, node: Node) -> Layout:
        """Labels of a data operand: of an activation, or new ones for every axis of an initializer.

        An initializer that is moved about (a class token, an embedding table) is a source of channels.
        """
        if not self.is_constant(tensor):
            return self.layout(tensor)
        factors = []
        for axis, length in enumerate(self.shape(tensor) or ()):
            if length > 1:
                ids = self.labels.fresh(length)
                self.bind(tensor, axis, ids, node)
                factors.append(Factor((axis,), ids))
        return tuple(factors)

    def set(self, tensor: str, layout: Sequence[object]) -> None:
        """Labels of an output; None entries are dropped for convenience, and what labels nothing."""
        kept = tuple(f for f in layout if f is not None and f.ids.size)  # type: ignore[attr-defined]
        if tensor and kept:
            self.layouts[tensor] = kept  # type: ignore[assignment]

    def bind(self, tensor: str, axis: int, ids: Ids, node: Node) -> None:
        """The positions along `axis` of an initializer, or of a weight that is computed, are these channels."""
        if not self.is_constant(tensor):
            own = self.single(tensor, axis, node)
            if own is None:
                self.labels.freeze(ids, node.name, f"'{tensor}' cannot change")
            else:
                self.labels.join(own, ids, node.name)
        elif (tensor, axis) in self.parameters:
            self.labels.join(self.parameters[tensor, axis], ids, node.name)
        else:
            self.parameters[tensor, axis] = ids
        self.bound_by.setdefault((tensor, axis), set()).add(node.name)

    def bind_all(self, tensor: str, axes: Mapping[int, Ids], node: Node) -> None:
        """`bind` along these axes; along the others a weight that is computed cannot change."""
        for axis, ids in axes.items():
            self.bind(tensor, axis, ids, node)
        if not self.is_constant(tensor):
            others = [a for f in self.layout(tensor) for a in f.axes if a not in axes]
            self.static(self.layout(tensor), others, node, "it is a weight of what cannot change")

    def freeze(self, tensor: str, node: Node, reason: str) -> None:
        """Nothing of this activation can change. (An initializer that a user does not bind is pinned anyway.)"""
        for factor in self.layout(tensor):
            self.labels.freeze(factor.ids, node.name, reason)

    def pin_unbound(self, users: Callable[[str], Sequence[Node]]) -> None:
        """Freeze parameter axes that only some of the nodes that read the parameter can slice."""
        for (tensor, axis), names in self.bound_by.items():
            for node in users(tensor):
                if node.name not in names:
                    self.labels.freeze(self.parameters[tensor, axis], node.name, f"needs all of '{tensor}'")

    def freeze_all(self, node: Node, reason: str) -> None:
        """Every input of the node is frozen; its outputs carry no labels."""
        for tensor in node.inputs:
            self.freeze(tensor, node, reason)

    def static(self, layout: Layout, axes: Sequence[int], node: Node, reason: str) -> Layout:
        """`layout` with nothing elastic along `axes`."""
        done = (self.labels.static(f, axes, node.name, reason) for f in layout)
        return tuple(f for f in done if f is not None)

    def single(self, tensor: str, axis: int, node: Node) -> Ids | None:
        """Ids along one axis of an activation, joined so that they depend on this axis alone."""
        factor = at(self.layout(tensor), axis)
        if factor is None:
            return None
        return self.labels.collapse(factor, axis, node.name).ids


def opaque(flow: Flow, node: Node) -> None:
    """Freeze what comes in: the operator's effect on channels is not described."""
    flow.freeze_all(node, f"{node.op_type} passes no channels")


def no_edits(node: Node, kept: Kept) -> list[Edit]:
    return []


def no_macs(node: Node, shapes: Shapes) -> int:
    return 0


@dataclass(frozen=True)
class OpSpec:
    """One operator. `torch` None: prunable and measurable, but not trainable."""

    op_type: str
    flow: Callable[[Flow, Node], None]
    torch: TorchFactory | None = None
    edits: Callable[[Node, Kept], list[Edit]] = no_edits
    macs: Callable[[Node, Shapes], int] = no_macs
    since: int = 1
    domain: str = ""


def attribute_or_input(node: Node, name: str, index: int, constants: Mapping[int, NDArray[Any]]) -> Any:
    """A setting that older opsets give as an attribute and newer ones as a constant input; None if absent."""
    if name in node.attributes:
        return node.attributes[name]
    return constants.get(index)
