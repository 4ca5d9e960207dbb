"""Elastic width: channels that must stay equal, as units; interchangeable units, as groups.

Labels run through the graph once, node by node (`OpSpec.flow`). Joined labels are one *unit*. Units
that touch the same axes of the same tensors equally often can be exchanged without changing the
network's function, so they form a *group* with one width. Linear in the size of the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from onnxnas.graph import Graph
from onnxnas.ops import resolve
from onnxnas.ops.channels import Factor, Ids, Labels
from onnxnas.ops.spec import Flow
from onnxnas.types import Frozen, Shape, WidthGroup

CARRIERS = {"Conv", "ConvTranspose", "Gemm", "MatMul", "Gather", "Einsum", "LSTM", "GRU", "RNN"}
Axes = dict[tuple[str, int], Ids]
T = TypeVar("T")
LEVELS = 8  # widths offered: n, 7n/8, ... n/4


@dataclass(frozen=True, eq=False)
class UnitLabels:
    """(tensor, axis) -> the unit at every position, -1 where the position always stays. `count` units in all."""

    count: int
    axes: Mapping[tuple[str, int], Ids]


def propagate(graph: Graph) -> Flow:
    """Run every node's flow function, in order, and freeze what reaches outputs or unknown operators."""
    initializers = graph.initializers

    def shape(tensor: str) -> Shape | None:
        info = graph.tensors.get(tensor)
        return None if info is None else info.shape

    flow = Flow(Labels(), shape, initializers.get, initializers.__contains__, graph.producer)
    for node in graph.nodes:
        spec = resolve(node)
        for tensor in node.captures:
            flow.freeze(tensor, node, "read inside a sub-graph")
        if spec is None:
            flow.freeze_all(node, f"operator {node.domain or 'onnx'}.{node.op_type} is not in the table")
            continue
        try:
            spec.flow(flow, node)
        except (ValueError, IndexError, KeyError) as problem:
            # A form of the operator that the table does not describe: nothing of it may change.
            flow.freeze_all(node, f"not described in this form ({type(problem).__name__}: {problem})")
            for output in node.outputs:
                flow.layouts.pop(output, None)
    for tensor in graph.outputs:
        for factor in flow.layout(tensor):
            flow.labels.freeze(factor.ids, tensor, "is a graph output")
    flow.pin_unbound(graph.consumers)
    return flow


def _one_axis_each(flow: Flow) -> None:
    """Join ids until every factor varies along one axis at most: what is kept of a tensor is dense."""
    many = [(t, f) for t, layout in flow.layouts.items() for f in layout if len(f.axes) > 1]
    while True:
        _, component = flow.labels.components()
        again = []
        for tensor, factor in many:
            roots = np.where(factor.ids < 0, -1, component[factor.ids])
            varying = [i for i in range(roots.ndim) if not (roots == roots.take([0], axis=i)).all()]
            if len(varying) > 1:
                distinct = [np.unique(_line(roots, i)).size for i in varying]
                keep = factor.axes[varying[int(np.argmax(distinct))]]
                flow.labels.collapse(factor, keep, tensor)
                again.append((tensor, factor))
        if not again:
            return


def _line(array: NDArray[np.int64], axis: int) -> NDArray[np.int64]:
    """The entries along one axis at position 0 of the others."""
    return array[tuple(slice(None) if i == axis else 0 for i in range(array.ndim))]


def _labelled(flow: Flow, component: Ids) -> Iterator[tuple[tuple[str, int], Ids]]:
    """((tensor, axis), component of each position) for activations and parameters."""
    for tensor, layout in flow.layouts.items():
        for factor in layout:
            yield (tensor, _varying_axis(factor, component)), _roots(factor, component)
    for key, ids in flow.parameters.items():
        yield key, np.where(ids < 0, -1, component[ids])


def _varying_axis(factor: Factor, component: Ids) -> int:
    if len(factor.axes) == 1:
        return factor.axes[0]
    roots = component[factor.ids]
    varying = [i for i in range(roots.ndim) if not (roots == roots.take([0], axis=i)).all()]
    return factor.axes[varying[0] if varying else 0]


def _roots(factor: Factor, component: Ids) -> Ids:
    line = _line(factor.ids, factor.axes.index(_varying_axis(factor, component)))
    return np.where(line < 0, -1, component[line])


def find_groups(graph: Graph) -> tuple[tuple[WidthGroup, ...], UnitLabels, tuple[Frozen, ...]]:
    """Width groups in the order in which their first tensor appears, the units, and what was frozen and why."""
    flow = propagate(graph)
    _one_axis_each(flow)
    count, component = flow.labels.components()
    stays = np.zeros(count, bool)
    for ids, _, _ in flow.labels.frozen():
        stays[component[ids]] = True
    axes = shared(_labelled(flow, component))
    axes = _present(_each(lambda roots: np.where((roots < 0) | stays[roots], -1, roots), axes))
    signature = _signatures(axes, count)
    in_parameters = np.zeros(count, bool)
    for key, _ in flow.parameters.items():
        if key in axes:
            in_parameters[axes[key][axes[key] >= 0]] = True
    ordered = np.zeros(count, bool)
    for ids in flow.labels.ordered():
        ordered[component[ids]] = True
    groups, axes = _grouped(graph, axes, signature, in_parameters, ordered)
    return groups, UnitLabels(count, axes), _reasons(flow, component)


def shared(axes: Iterable[tuple[tuple[str, int], Ids]]) -> Axes:
    """Equal arrays as one object: many tensors carry the same channels."""
    known: dict[bytes, Ids] = {}
    return {key: known.setdefault(ids.tobytes(), ids) for key, ids in axes}


def _each(function: Callable[[Ids], T], axes: Axes) -> dict[tuple[str, int], T]:
    """`function` of every axis, called once for each array."""
    known: dict[int, T] = {}
    for ids in axes.values():
        if id(ids) not in known:
            known[id(ids)] = function(ids)
    return {key: known[id(ids)] for key, ids in axes.items()}


def _present(axes: Axes) -> Axes:
    """The axes that have any unit left."""
    any_left = _each(lambda roots: bool((roots >= 0).any()), axes)
    return {key: roots for key, roots in axes.items() if any_left[key]}


def _counts(axes: Axes) -> dict[tuple[str, int], tuple[Ids, Ids]]:
    """The units of every axis, each once, and how often."""
    return _each(lambda roots: np.unique(roots[roots >= 0], return_counts=True), axes)


def _signatures(axes: Axes, count: int) -> NDArray[np.uint64]:
    """A 64-bit sum for each unit: equal when it touches the same (tensor, axis) pairs equally often."""
    rng = np.random.default_rng(0)
    total = np.zeros(count, np.uint64)
    for units, times in _counts(axes).values():
        value = rng.integers(1, 2**63, dtype=np.uint64)
        total[units] += times.astype(np.uint64) * value
    return total


def _grouped(
    graph: Graph,
    axes: Axes,
    signature: NDArray[np.uint64],
    in_parameters: NDArray[np.bool_],
    ordered: NDArray[np.bool_],
) -> tuple[tuple[WidthGroup, ...], Axes]:
    """Groups of two units or more that own parameters; other units are taken out of `axes`."""
    members: dict[int, list[int]] = {}
    seen = np.zeros(signature.size, bool)
    for roots in {id(roots): roots for roots in axes.values()}.values():
        present = roots[roots >= 0]
        new = present[~seen[present]]
        for unit in dict.fromkeys(new.tolist()):
            members.setdefault(int(signature[unit]), []).append(unit)
        seen[new] = True
    lists = [units for units in members.values() if len(units) > 1 and in_parameters[units].any()]
    group_of = np.full(signature.size + 1, -1, np.int64)
    for number, units in enumerate(lists):
        group_of[units] = number
    producers, consumers = _ends(graph, axes, group_of, len(lists))
    channels = _channels(graph, axes, group_of, len(lists))
    groups = tuple(
        WidthGroup(
            f"g{i}",
            len(units),
            width_choices(len(units), channels[i]),
            np.asarray(units, np.int64),
            tuple(producers[i]),
            tuple(consumers[i]),
            bool(ordered[units].any()),
            graph.node(producers[i][0]).scope if producers[i] else "",
        )
        for i, units in enumerate(lists)
    )
    return groups, _present(_each(lambda roots: np.where(group_of[roots] >= 0, roots, -1), axes))


def _channels(graph: Graph, axes: Axes, group_of: Ids, count: int) -> list[int]:
    """For each group, the least number of positions that a unit has on an axis of a layer's weight."""
    weights = {
        id(roots): roots
        for (tensor, _), roots in axes.items()
        if tensor in graph.initializers and any(n.op_type in CARRIERS for n in graph.consumers(tensor))
    }
    least = [0] * count
    for roots in weights.values():
        units, times = np.unique(roots[roots >= 0], return_counts=True)
        for group, n in {int(g): int(t) for g, t in zip(group_of[units], times, strict=True)}.items():
            if group >= 0:
                least[group] = min(least[group] or n, n)
    return least


def _ends(graph: Graph, axes: Axes, group_of: Ids, count: int) -> tuple[list[list[str]], list[list[str]]]:
    """For each group, the weighted nodes that make its channels and those that read them."""
    producers: list[list[str]] = [[] for _ in range(count)]
    consumers: list[list[str]] = [[] for _ in range(count)]
    touched: dict[str, set[int]] = {}
    for (tensor, _), found in _each(lambda roots: set(group_of[roots].tolist()), axes).items():
        touched.setdefault(tensor, set()).update(found)

    def groups(tensors: tuple[str, ...]) -> set[int]:
        return {g for t in tensors for g in touched.get(t, ()) if g >= 0}

    for node in graph.nodes:
        if node.op_type not in CARRIERS:
            continue
        parameters = groups(tuple(t for t in node.inputs if t in graph.initializers))
        data = groups(tuple(t for t in node.inputs if t and t not in graph.initializers))
        for g in groups(node.outputs) & parameters:
            producers[g].append(node.name)
        for g in data & parameters:
            consumers[g].append(node.name)
    return producers, consumers


def width_choices(size: int, channels: int = 1) -> tuple[int, ...]:
    """Widths offered for a group of `size` units: eighths of it down to a quarter, largest first.

    Kernels work on blocks of channels, and a width that leaves a block half empty costs as much as a full
    one or more (ONNX Runtime on AVX-512, CIFAR ResNet-20: half of the multiply-accumulates in widths such as 10
    and 12 gain 1.2x, a quarter in widths of 8, 16 and 32 gains 2.1x). So groups of 32 and more are offered
    multiples of 8, of 16 and more multiples of 4, of 8 and more even numbers, where their size is one. A unit
    of several `channels` (an attention head) is a block of its own.
    """
    steps = ((8, 32), (4, 16), (2, 8)) if channels == 1 else ()
    step = next((s for s, least in steps if size >= least and size % s == 0), 1)
    widths = {max(step, round(size * k / LEVELS / step) * step) for k in range(LEVELS, LEVELS // 4 - 1, -1)}
    return tuple(sorted(widths, reverse=True))


def _reasons(flow: Flow, component: Ids) -> tuple[Frozen, ...]:
    """Each (node, reason) once, in order, with the number of channels that it pins."""
    pinned: dict[tuple[str, str], set[int]] = {}
    for ids, node, reason in flow.labels.frozen():
        pinned.setdefault((node, reason), set()).update(component[ids].tolist())
    return tuple(
        Frozen(node, f"width of {len(units)} channel{'s' if len(units) > 1 else ''}", reason)
        for (node, reason), units in pinned.items()
    )
