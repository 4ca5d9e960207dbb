"""What a sub-network means: the edits that make it, its cost, and which nodes are left.

One plan serves the rewriters and the super-network in torch, so that they cannot disagree.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxnas.analysis.width import UnitLabels, shared
from onnxnas.graph import Graph
from onnxnas.ops import resolve
from onnxnas.ops.spec import OpSpec, no_edits, no_macs
from onnxnas.types import Block, Cost, KernelChoice, Node, Shape, Subnet, WidthGroup
from rewriters.edits import Bypass, CropKernel, Edit, Keep

# the inputs that weights are counted of
COUNTED = {
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "MatMul"), slice(0, 2)),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), slice(1, 3)),
    "Einsum": slice(None),
}


Axes = Mapping[str, Mapping[int, NDArray[np.int64]]]
"""tensor -> axis -> units; equal ones are one object."""

Layer = tuple[tuple[Shape | None, ...], int]
"""The shapes of a node's inputs and its multiply-accumulates."""


class KeptView:
    """`ops.spec.Kept` for one sub-network."""

    def __init__(
        self, graph: Graph, axes: Axes, kept: NDArray[np.bool_], kernels: Mapping[str, tuple[int, ...]]
    ) -> None:
        self._graph, self._axes, self._kept, self._kernels = graph, axes, kept, kernels
        self._masks: dict[int, NDArray[np.bool_] | None] = {}  # by the units' identity
        self._indices: dict[int, NDArray[np.int64]] = {}
        self._shapes: dict[str, Shape | None] = {}

    def mask(self, tensor: str, axis: int) -> NDArray[np.bool_] | None:
        units = self._axes.get(tensor, {}).get(axis)
        return None if units is None else self._mask(units)

    def _mask(self, units: NDArray[np.int64]) -> NDArray[np.bool_] | None:
        if id(units) not in self._masks:
            mask = self._kept[units]
            self._masks[id(units)] = None if mask.all() else mask
        return self._masks[id(units)]

    def indices(self, units: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """The positions that are kept of an axis with these units; None for all."""
        mask = self._mask(units)
        if mask is None:
            return None
        if id(units) not in self._indices:
            self._indices[id(units)] = np.flatnonzero(mask).astype(np.int64)
        return self._indices[id(units)]

    def shape(self, tensor: str) -> Shape | None:
        info = self._graph.tensors.get(tensor)
        return None if info is None else info.shape

    def kept_shape(self, tensor: str) -> Shape | None:
        if tensor not in self._shapes:
            self._shapes[tensor] = self._kept_shape(tensor)
        return self._shapes[tensor]

    def _kept_shape(self, tensor: str) -> Shape | None:
        shape = self.shape(tensor)
        if shape is None:
            return None
        if tensor in self._kernels:
            shape = (*shape[:2], *self._kernels[tensor])
        sizes = list(shape)
        for axis, units in self._axes.get(tensor, {}).items():
            left = self.indices(units)
            if left is not None:
                sizes[axis] = left.size
        return tuple(sizes)

    def constant(self, tensor: str) -> NDArray[Any] | None:
        return self._graph.initializers.get(tensor)


class Planner:
    """Works out plans for one space; everything that does not depend on the sub-network is done once."""

    def __init__(
        self, graph: Graph, labels: UnitLabels, blocks: Sequence[Block], groups: Sequence[WidthGroup],
        kernels: Sequence[KernelChoice], order: Mapping[str, NDArray[np.int64]],
    ) -> None:  # fmt: skip
        self.graph = graph
        self._labels = labels
        self._blocks = {b.id: b for b in blocks}
        self._groups = {g.id: g for g in groups}
        self._kernels = {k.id: k for k in kernels}
        self._order = order
        self._layers: dict[tuple[object, ...], Layer] = {}

    @cached_property
    def _specs(self) -> dict[str, OpSpec]:
        found = ((node.name, resolve(node)) for node in self.graph.nodes)
        return {name: spec for name, spec in found if spec is not None}

    @cached_property
    def _edited(self) -> tuple[Node, ...]:
        """Nodes whose own settings may follow the channels."""
        labelled = {tensor for tensor, _ in self._labels.axes}
        return tuple(
            node
            for node in self.graph.nodes
            if node.name in self._specs
            and self._specs[node.name].edits is not no_edits
            and labelled & {*node.inputs, *node.outputs}
        )

    @cached_property
    def _axes(self) -> Axes:
        """The labelled axes; whole groups of tensors carry the same units, which are looked at once then."""
        found: dict[str, dict[int, NDArray[np.int64]]] = {}
        for (tensor, axis), units in shared(self._labels.axes.items()).items():
            found.setdefault(tensor, {})[axis] = units
        return found

    @cached_property
    def _sliced(self) -> tuple[tuple[str, int, NDArray[np.int64], frozenset[str]], ...]:
        """(initializer, axis, its units, the nodes that read it) for every labelled axis of an initializer."""
        return tuple(
            (tensor, axis, self._axes[tensor][axis], frozenset(n.name for n in self.graph.consumers(tensor)))
            for tensor, axis in self._labels.axes
            if tensor in self.graph.initializers
        )

    @cached_property
    def _counted(self) -> tuple[Node, ...]:
        return tuple(
            n for n in self.graph.nodes if n.name in self._specs and self._specs[n.name].macs is not no_macs
        )

    @cached_property
    def _follows(self) -> tuple[tuple[Node, tuple[str, ...], tuple[str, ...]], ...]:
        """Every layer with all that its shapes follow: width groups, and elastic kernels, by name."""
        owner = np.full(self._labels.count + 1, -1)  # a unit is of one group at most
        for place, group in enumerate(self._groups.values()):
            owner[group.units] = place
        names = tuple(self._groups)
        met: dict[int, frozenset[int]] = {}  # by the units' identity
        read = {self.graph.node(kernel.node).inputs[1]: name for name, kernel in self._kernels.items()}
        found = []
        for node in self._counted:
            tensors = (*node.inputs, *node.outputs)
            groups: set[int] = set()
            for units in (u for tensor in tensors for u in self._axes.get(tensor, {}).values()):
                if id(units) not in met:
                    met[id(units)] = frozenset(np.unique(owner[units]).tolist()) - {-1}
                groups |= met[id(units)]
            kernels = tuple(dict.fromkeys(read[tensor] for tensor in tensors if tensor in read))
            found.append((node, tuple(names[g] for g in sorted(groups)), kernels))
        return tuple(found)

    def _left(self, subnet: Subnet) -> Iterator[tuple[int, Node, Layer]]:
        """The layers that are left, by number; each worked out once for all sub-networks of the same sizes there."""
        dead, view = self.dead(subnet), None
        for number, (node, groups, kernels) in enumerate(self._follows):
            if node.name in dead:
                continue
            key = (node.name, tuple(map(subnet.width.get, groups)), tuple(map(subnet.kernel.get, kernels)))
            if key not in self._layers:
                view = view or self.view(subnet)
                shapes = tuple(view.kept_shape(tensor) for tensor in node.inputs)
                self._layers[key] = (shapes, self._specs[node.name].macs(node, view.kept_shape))
            yield number, node, self._layers[key]

    def dead(self, subnet: Subnet) -> frozenset[str]:
        """Names of the nodes inside skipped blocks."""
        return frozenset(n for b in subnet.skip for n in self._blocks[b].nodes)

    def view(self, subnet: Subnet) -> KeptView:
        """What the sub-network keeps of every tensor."""
        kept = np.ones(self._labels.count + 1, bool)  # the last one answers for -1
        for name, width in subnet.width.items():
            group = self._groups[name]
            kept[group.units[self._order[name][width:]]] = False
        kernels = {}
        for name, size in subnet.kernel.items():
            kernels[self.graph.node(self._kernels[name].node).inputs[1]] = size
        return KeptView(self.graph, self._axes, kept, kernels)

    def plan(self, subnet: Subnet) -> tuple[Edit, ...]:
        """Bypasses, slices, cropped kernels and what the operators need beside; nothing for the original."""
        dead, view = self.dead(subnet), self.view(subnet)
        edits: list[Edit] = [Bypass(self._blocks[b].entry, self._blocks[b].exit) for b in sorted(subnet.skip)]
        if subnet.width:
            for tensor, axis, units, readers in self._sliced:
                kept = None if readers <= dead else view.indices(units)
                if kept is not None:
                    edits.append(Keep(tensor, axis, kept))
            for node in self._edited:
                if node.name not in dead:
                    edits += self._specs[node.name].edits(node, view)
        for name, size in subnet.kernel.items():
            kernel = self._kernels[name]
            if kernel.node not in dead and size != kernel.size:
                edits.append(CropKernel(kernel.node, size))
        return tuple(edits)

    def cost(self, subnet: Subnet) -> Cost:
        """Counted from the shapes that are left. Weights shared by several nodes count once."""
        macs = 0
        weights: dict[str, int] = {}
        for _, node, (shapes, count) in self._left(subnet):
            macs += count
            if node.op_type in COUNTED:
                span = COUNTED[node.op_type]
                for tensor, shape in zip(node.inputs[span], shapes[span], strict=True):
                    if tensor in self.graph.initializers:
                        weights[tensor] = math.prod(shape or ())
        return Cost(macs, sum(weights.values()))

    def profile(self, subnet: Subnet) -> NDArray[np.float64]:
        """Multiply-accumulates of every layer that has any (l,), 0 in skipped blocks."""
        counts = np.zeros(len(self._follows))
        for number, _, (_, count) in self._left(subnet):
            counts[number] = count
        return counts

    def layers(self, subnet: Subnet) -> Iterator[tuple[str, tuple[Shape | None, ...], int]]:
        """(node, the shapes of its inputs, multiply-accumulates) of every layer that has any and is left."""
        for _, node, layer in self._left(subnet):
            yield node.name, *layer

    def block_costs(self) -> dict[str, Cost]:
        """What each block costs in the original: the difference that skipping it alone makes. Linear in the graph."""
        view = self.view(Subnet())
        macs = {node.name: self._specs[node.name].macs(node, view.kept_shape) for node in self._counted}
        read: dict[str, list[str]] = {}  # node -> the weights counted for it
        readers: dict[str, int] = {}
        for node in self._counted:
            if node.op_type in COUNTED:
                inputs = dict.fromkeys(node.inputs[COUNTED[node.op_type]])
                read[node.name] = [t for t in inputs if t in self.graph.initializers]
                for tensor in read[node.name]:
                    readers[tensor] = readers.get(tensor, 0) + 1
        found = {}
        for name, block in self._blocks.items():
            inside = Counter(tensor for node in block.nodes for tensor in read.get(node, ()))
            own = [tensor for tensor, count in inside.items() if count == readers[tensor]]
            sizes = (int(np.prod(view.shape(tensor) or ())) for tensor in own)
            found[name] = Cost(sum(macs.get(node, 0) for node in block.nodes), sum(sizes))
        return found
