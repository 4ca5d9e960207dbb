"""Turning a plan into a flat list of steps.

A plan is the list of edits that makes a sub-network out of the file. The same edits, read here:

    Bypass            consumers of `exit` read `entry`; nodes that nothing needs any more are left out
    Keep              the parameter is read through a `View`: narrow where the kept indices run on, else a gather
    CropKernel        the view ends with a centre crop and the learned matrix; the node's padding shrinks
    SetAttribute      the node's function is made anew
    ReplaceConstant   likewise, with the other constant

Tensors live in numbered slots; each step says which slots it reads, writes and may clear.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onnxnas.errors import ModelError
from onnxnas.types import Node
from rewriters.edits import Bypass, CropKernel, Edit, Keep, ReplaceConstant, SetAttribute

Function = Callable[[Sequence[Tensor | None]], Any]


@dataclass(frozen=True, eq=False)
class Take:
    """Part of one axis: `length` values from `start`, or `indices` when they do not run on."""

    axis: int
    start: int
    length: int
    indices: Tensor | None = None

    def of(self, value: Tensor) -> Tensor:
        if self.indices is None:
            return value.narrow(self.axis, self.start, self.length)
        return value.index_select(self.axis, self.indices)


@dataclass(frozen=True, eq=False)
class View:
    """How a sub-network reads one initializer: takes, then a centre crop to `crop` times matrix `matrix`."""

    takes: tuple[Take, ...] = ()
    crop: tuple[int, ...] | None = None
    matrix: str | None = None

    def of(self, value: Tensor, matrix: Tensor | None = None) -> Tensor:
        for take in self.takes:
            value = take.of(value)
        if self.crop is not None:
            lead = value.dim() - len(self.crop)
            for i, size in enumerate(self.crop):
                value = value.narrow(lead + i, (value.shape[lead + i] - size) // 2, size)
            if matrix is not None:
                value = (value.flatten(lead) @ matrix).reshape(*value.shape[:lead], *self.crop)
        return value


@dataclass(frozen=True, eq=False)
class Step:
    """One node: `outputs` are slots (-1: nobody reads it), `dead` are slots to clear afterwards."""

    node: str
    function: Function
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    dead: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Program:
    """A sub-network ready to run. Slot 0 is always None: the absent optional input."""

    steps: tuple[Step, ...]
    slots: int
    inputs: tuple[tuple[str, int], ...]
    reads: tuple[tuple[str, int, View | None], ...]
    constants: tuple[tuple[int, Tensor], ...]
    outputs: tuple[int, ...]
    live: frozenset[str]
    views: Mapping[str, View]


def take(indices: NDArray[np.int64], axis: int, extent: int, device: torch.device) -> Take | None:
    """The cheapest way to keep `indices` of an axis of `extent` values; None: nothing to do."""
    n = len(indices)
    if n and np.array_equal(indices, np.arange(indices[0], indices[0] + n)):
        if n == extent:
            return None
        return Take(axis, int(indices[0]), n)
    return Take(axis, 0, n, torch.from_numpy(np.array(indices, dtype=np.int64)).to(device))


def _constant(value: NDArray[Any], node: Node, device: torch.device) -> Tensor:
    try:
        return torch.from_numpy(value).to(device)
    except TypeError:
        raise ModelError(
            f"node {node.name!r}: torch does not compute with the type of its constant, {value.dtype}; "
            "the model can be pruned and measured, but not trained"
        ) from None


def cropped_pads(node: Node, old: Sequence[int], new: Sequence[int]) -> Node:
    """Convolution `node` with the padding that keeps its resolution when its kernel shrinks."""
    attributes = dict(node.attributes)
    if "kernel_shape" in attributes:
        attributes["kernel_shape"] = tuple(new)
    automatic = attributes.get("auto_pad", "NOTSET")
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        return replace(node, attributes=attributes)
    rank = len(new)
    dilations = tuple(attributes.get("dilations") or (1,) * rank)
    pads = (0,) * 2 * rank if automatic == "VALID" else tuple(attributes.get("pads") or (0,) * 2 * rank)
    less = [d * (a - b) // 2 for a, b, d in zip(old, new, dilations, strict=True)]
    attributes["auto_pad"] = "NOTSET"
    attributes["pads"] = tuple(p - s for p, s in zip(pads, less + less, strict=True))
    return replace(node, attributes=attributes)


class Compiler:
    """Compiles plans for one graph.

    `make(node, constants)` gives the torch function of a node; `matrix(node, weight, size)` the name of the
    learned kernel matrix. `values` holds every initializer: a Tensor for floats, an array for the rest.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        initializers: Mapping[str, NDArray[np.generic]],
        floats: frozenset[str],
        inputs: Sequence[str],
        outputs: Sequence[str],
        make: Callable[[Node, Mapping[int, NDArray[np.generic]]], Function],
        matrix: Callable[[str, tuple[int, ...]], str | None],
    ) -> None:
        self.nodes = tuple(nodes)
        self.initializers = initializers
        self.floats = floats
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.make = make
        self.matrix = matrix
        self._by_name = {node.name: node for node in self.nodes}
        self._functions: dict[str, Function] = {}

    def compile(self, plan: Sequence[Edit], device: torch.device) -> Program:
        """The flat program of the sub-network that `plan` describes."""
        alias, changed, replaced, views = self._read(plan, device)
        kept: dict[str, NDArray[np.generic]] = {}
        for edit in plan:
            if isinstance(edit, Keep) and edit.tensor not in self.floats:
                value = kept.get(edit.tensor, self.initializers[edit.tensor])
                kept[edit.tensor] = np.take(value, edit.indices, axis=edit.axis)

        def source(name: str) -> str:
            seen = 0
            while name in alias:
                name = alias[name]
                seen += 1
                if seen > len(alias):
                    raise ModelError(f"the bypasses of a plan form a cycle at tensor {name!r}")
            return name

        live = self._live(source)
        slots: dict[str, int] = {"": 0}
        for name in self.inputs:
            slots[name] = len(slots)
        reads: list[tuple[str, int, View | None]] = []
        constants: list[tuple[int, Tensor]] = []
        extra = 0
        steps: list[tuple[Node, Function, tuple[int, ...]]] = []
        for node in live:
            fixed: dict[int, NDArray[np.generic]] = {}
            ins: list[int] = []
            added = [i for n, i in replaced if n == node.name and i >= len(node.inputs)]
            inputs = (*node.reads, *[""] * (max(added) + 1 - len(node.inputs) if added else 0))
            for index, raw in enumerate(inputs):
                name = source(raw)
                own = replaced.get((node.name, index))
                if own is None and name in self.initializers and name not in self.floats:
                    own = kept.get(name, self.initializers[name])
                if own is not None:
                    # the function is made with the value; the tensor is there for those that compute with it
                    own = np.array(own)  # the file's arrays are read-only, which torch warns of
                    fixed[index] = own
                    extra += 1
                    key = f"\0{extra}"
                    slots[key] = len(slots)
                    constants.append((slots[key], _constant(own, node, device)))
                    ins.append(slots[key])
                    continue
                if name in self.initializers and name not in slots:
                    slots[name] = len(slots)
                    reads.append((name, slots[name], views.get(name)))
                if name not in slots:
                    raise ModelError(f"node {node.name!r} reads tensor {name!r}, which no node makes")
                ins.append(slots[name])
            for name in node.outputs:
                if name:
                    slots.setdefault(name, len(slots))
            plain = node.name not in changed and not any(
                (node.name, i) in replaced or source(n) in kept for i, n in enumerate(inputs)
            )
            steps.append((node, self._function(changed.get(node.name, node), fixed, plain), tuple(ins)))
        for name in map(source, self.outputs):
            if name in self.floats and name not in slots:
                slots[name] = len(slots)
                reads.append((name, slots[name], views.get(name)))
        outputs = tuple(slots[source(name)] for name in self.outputs)
        return Program(
            _with_liveness(steps, slots, outputs),
            len(slots),
            tuple((name, slots[name]) for name in self.inputs),
            tuple(reads),
            tuple(constants),
            outputs,
            frozenset(node.name for node in live),
            views,
        )

    def _function(self, node: Node, fixed: Mapping[int, NDArray[np.generic]], plain: bool) -> Function:
        if not plain:
            return self.make(node, fixed)
        if node.name not in self._functions:
            self._functions[node.name] = self.make(node, fixed)
        return self._functions[node.name]

    def _read(
        self, plan: Sequence[Edit], device: torch.device
    ) -> tuple[dict[str, str], dict[str, Node], dict[tuple[str, int], NDArray[np.generic]], dict[str, View]]:
        alias: dict[str, str] = {}
        changed: dict[str, Node] = {}
        replaced: dict[tuple[str, int], NDArray[np.generic]] = {}
        views: dict[str, View] = {}
        extents: dict[tuple[str, int], int] = {}
        for edit in plan:
            match edit:
                case Bypass(entry, exit):
                    alias[exit] = entry
                case SetAttribute(name, attribute, value):
                    node = changed.get(name, self._by_name[name])
                    new = {k: v for k, v in node.attributes.items() if k != attribute}
                    changed[name] = replace(
                        node, attributes=new if value is None else {**new, attribute: value}
                    )
                case ReplaceConstant():
                    replaced[edit.node, edit.input] = edit.value
                case Keep() if edit.tensor in self.floats:
                    shape = self.initializers[edit.tensor].shape
                    axis = edit.axis % len(shape)
                    extent = extents.get((edit.tensor, axis), int(shape[axis]))
                    extents[edit.tensor, axis] = len(edit.indices)
                    part = take(np.asarray(edit.indices), axis, extent, device)
                    if part is not None:
                        view = views.get(edit.tensor, View())
                        views[edit.tensor] = replace(view, takes=(*view.takes, part))
                case CropKernel():
                    node = changed.get(edit.node, self._by_name[edit.node])
                    weight = node.inputs[1]
                    size = tuple(edit.size)
                    old = self.initializers[weight].shape[-len(size) :]
                    changed[edit.node] = cropped_pads(node, old, size)
                    views[weight] = replace(
                        views.get(weight, View()), crop=size, matrix=self.matrix(edit.node, size)
                    )
                case Keep():
                    pass
                case _:
                    raise ModelError(f"a sub-network cannot be trained with the edit {type(edit).__name__}")
        return alias, changed, replaced, views

    def _live(self, source: Callable[[str], str]) -> list[Node]:
        needed = {source(name) for name in self.outputs}
        live: list[Node] = []
        for node in reversed(self.nodes):
            if any(name in needed for name in node.outputs if name):
                live.append(node)
                needed.update(source(name) for name in node.reads if name)
        live.reverse()
        return live


def _with_liveness(
    steps: Sequence[tuple[Node, Function, tuple[int, ...]]],
    slots: Mapping[str, int],
    outputs: tuple[int, ...],
) -> tuple[Step, ...]:
    read = {slot for _, _, ins in steps for slot in ins} | set(outputs)
    spoken = set(outputs) | {0}
    made: list[Step] = []
    for node, function, ins in reversed(steps):
        outs = tuple(slots[name] if name and slots[name] in read else -1 for name in node.outputs)
        dead = tuple(sorted({slot for slot in ins if slot not in spoken}))
        spoken.update(ins)
        made.append(Step(node.name, function, ins, outs, dead))
    made.reverse()
    return tuple(made)
