"""Which units of a group matter most, and sorting them by an exact permutation.

The importance of a unit is the norm of the weights that make it and read it. A convolution in front of
a BatchNormalization is judged by its folded weight (its own scale says nothing: Li et al. 2017 prune
by filter norm, and normalisation makes that arbitrary), so that a model gives the same order whether its
exporter folded BatchNormalization or not.

With data, the importance of a unit can be what the loss would change by, to first order, if the unit were not
there (`by_data`; Molchanov et al., "Importance estimation for neural network pruning", 2019).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxnas.analysis import Analysis
from onnxnas.analysis.width import CARRIERS
from onnxnas.errors import ConfigError
from onnxnas.graph import Graph
from onnxnas.space.plan import COUNTED
from onnxnas.types import Node, WidthGroup
from rewriters.edits import Edit, Keep

Floats = NDArray[np.float64]
_ELEMENTS = 1 << 16  # at a time


def order_by(analysis: Analysis, groups: Sequence[WidthGroup], rule: str) -> dict[str, NDArray[np.int64]]:
    """For each group the places of its units, most important first. Raises ConfigError on an unknown rule."""
    if rule == "none":
        return {g.id: np.arange(g.size) for g in groups}
    return by_score(groups, importance(analysis, rule))


def importance(analysis: Analysis, rule: str = "l1") -> Floats:
    """One score for every unit: its share of each weight it touches ('l1' or 'l2' norm), added up.

    Raises ConfigError on an unknown rule.
    """
    if rule not in ("l1", "l2"):
        raise ConfigError(f"importance: got '{rule}', expected l1, l2 or none")
    power = 1 if rule == "l1" else 2
    graph, scores = analysis.graph, np.zeros(analysis.labels.count)
    for node, tensor, axes in _weights(analysis):
        weight, factor = graph.initializers[tensor], _factor(graph, node, tensor)
        for axis, part in _sums(weight, factor, axes, power).items():
            _add(scores, analysis.labels.axes[tensor, axis], part / max(float(part.mean()), 1e-30))
    return scores


def by_data(analysis: Analysis, products: Iterable[Mapping[str, NDArray[Any]]]) -> Floats:
    """One score for every unit: the mean over batches of the squared sum of its weights' products.

    Each mapping has, by initializer, weight times gradient of the loss over one batch, in the weight's shape.
    """
    read = {(tensor, axis) for _, tensor, axes in _weights(analysis) for axis in axes}
    scores, batches = np.zeros(analysis.labels.count), 0
    for product in products:
        change = np.zeros_like(scores)
        for tensor, axis in sorted(read):
            if tensor in product:
                _add(change, analysis.labels.axes[tensor, axis], _along(product[tensor], axis))
        scores, batches = scores + change**2, batches + 1
    return scores / max(batches, 1)


def by_score(groups: Sequence[WidthGroup], scores: Floats) -> dict[str, NDArray[np.int64]]:
    """For each group the places of its units, the highest score first."""
    return {g.id: np.argsort(-scores[g.units], kind="stable") for g in groups}


def _weights(analysis: Analysis) -> Iterator[tuple[Node, str, list[int]]]:
    """(node, initializer, its labelled axes) for every weight of an operator that carries channels."""
    labelled: dict[str, list[int]] = {}
    for tensor, axis in analysis.labels.axes:
        if tensor in analysis.graph.initializers:
            labelled.setdefault(tensor, []).append(axis)
    for node in analysis.graph.nodes:
        if node.op_type in CARRIERS:
            for tensor in node.inputs[COUNTED.get(node.op_type, slice(0, 2))]:
                if tensor in labelled:
                    yield node, tensor, labelled[tensor]


def _along(values: NDArray[Any], axis: int) -> Floats:
    """Sums over all other axes."""
    return values.sum(tuple(a for a in range(values.ndim) if a != axis), dtype=np.float64)  # type: ignore[no-any-return]


def _add(scores: Floats, units: NDArray[np.int64], part: Floats) -> None:
    """Add to the scores of the units along an axis; -1 is none."""
    np.add.at(scores, units[units >= 0], part[units >= 0])


def _sums(weight: NDArray[Any], factor: Floats, axes: Sequence[int], power: int) -> dict[int, Floats]:
    """By axis, sum |w f|^power over all others; a few rows at a time, since weights are larger than caches."""
    found = {axis: np.zeros(weight.shape[axis]) for axis in axes}
    rows = max(1, _ELEMENTS * len(weight) // max(weight.size, 1))
    factor = np.broadcast_to(factor, (len(weight), *factor.shape[1:]))
    for start in range(0, len(weight), rows):
        part = slice(start, start + rows)
        size = weight[part].astype(np.float64)
        size *= factor[part]
        np.abs(size, out=size)
        if power == 2:
            size *= size
        for axis in axes:
            found[axis][part if axis == 0 else slice(None)] += _along(size, axis)
    return found


def _factor(graph: Graph, node: Node, tensor: str) -> Floats:
    """What the BatchNormalization behind a convolution multiplies its weight by; of the weight's rank."""
    weight = graph.initializers[tensor]
    none = np.ones([1] * weight.ndim)
    readers = graph.consumers(node.outputs[0])
    if node.op_type not in ("Conv", "ConvTranspose") or len(readers) != 1:
        return none
    norm = readers[0]
    if norm.op_type != "BatchNormalization" or not all(p in graph.initializers for p in norm.inputs[1:5]):
        return none
    scale, var = (graph.initializers[norm.inputs[i]].astype(np.float64) for i in (1, 4))
    factor = scale / np.sqrt(var + float(norm.attributes.get("epsilon", 1e-5)))
    rest = [1] * (weight.ndim - 2)
    if node.op_type == "Conv":
        return factor.reshape(-1, 1, *rest)
    groups = int(node.attributes.get("group", 1))
    by_group = np.repeat(factor.reshape(groups, -1), weight.shape[0] // groups, axis=0)
    return by_group.reshape(weight.shape[0], -1, *rest)


def sorting_edits(analysis: Analysis, order: dict[str, NDArray[np.int64]]) -> tuple[Edit, ...]:
    """Permutations of the initializers that put every group's units in the given order.

    The network's function stays as it is, up to the order of floating-point sums. Groups whose order
    matters to an operator (`WidthGroup.ordered`) are left alone.
    """
    count = analysis.labels.count
    place, number = np.full(count + 1, -1, np.int64), np.full(count + 1, -1, np.int64)
    for i, group in enumerate(analysis.groups):
        if not group.ordered and group.id in order:
            place[group.units], number[group.units] = np.arange(group.size), i
    edits: list[Edit] = []
    for (tensor, axis), units in analysis.labels.axes.items():
        if tensor not in analysis.graph.initializers:
            continue
        indices = np.arange(units.size, dtype=np.int64)
        for i in np.unique(number[units]):
            if i < 0:
                continue
            here = np.flatnonzero(number[units] == i)
            group = analysis.groups[i]
            # row k holds the positions of unit k, in order
            rows = here[np.argsort(place[units[here]], kind="stable")].reshape(group.size, -1)
            indices[rows.reshape(-1)] = rows[order[group.id]].reshape(-1)
        if (indices != np.arange(units.size)).any():
            edits.append(Keep(tensor, axis, indices))
    return tuple(edits)
