"""Models that tell of their tensors instead of what they compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from rewriters.parts import Parts
from rewriters.share import unique
from rewriters.skeleton import strip

_AXES_ARE_INPUT = {"ReduceMin": 18, "ReduceMax": 18, "ReduceMean": 18}  # from which opset it reads its axes
_CHANNELS = 1


def with_ranges(parts: Parts, tensors: Sequence[str]) -> Parts:
    """The model of `parts` with other outputs: two for each tensor, (n,) each, the extremes of each of its rows.

    A row is what belongs to one position of the first axis, which mostly is one sample. First those of the least
    values, in the order of `tensors`, then those of the greatest. Tensors have at least one axis.
    """
    told = _Told(parts)
    found: dict[str, list[str]] = {"ReduceMin": [], "ReduceMax": []}
    for tensor in tensors:
        rows = told.node("Flatten", [tensor], f"{tensor}_rows", axis=1)
        for op, names in found.items():
            names.append(told.reduced(op, rows, f"{tensor}_{op}", (1,), keepdims=0))
    return told.parts({name: 1 for names in found.values() for name in names})


def with_means(parts: Parts, ranks: Mapping[str, int]) -> Parts:
    """The model of `parts` with the means of tensors as outputs: (1, channels, 1, ...) for one of so many axes."""
    told = _Told(parts)
    return told.parts({told.mean(tensor, rank): rank for tensor, rank in ranks.items()})


def with_means_given(parts: Parts, ranks: Mapping[str, int]) -> Parts:
    """The model of `parts` whose tensors are moved to have the means that it is given.

    There is an input more for each, as `with_means` tells it, in that order at the end; outputs are by how much each
    was moved, (1, channels, 1, ...). What is behind a tensor sees it moved. Tensors are outputs of nodes.
    """
    told = _Told(parts)
    given = {tensor: told.given(f"{tensor}_given", rank) for tensor, rank in ranks.items()}
    moves: dict[str, str] = {}
    before, told.nodes = told.nodes, []
    for node in before:
        told.nodes.append(node)
        for index, tensor in enumerate(node.output):
            if tensor in ranks:
                raw = node.output[index] = told.free(f"{tensor}_raw")
                mean = told.mean(raw, ranks[tensor])
                moves[tensor] = told.node("Sub", [given[tensor], mean], f"{tensor}_move")
                told.node("Add", [raw, moves[tensor]], f"{tensor}_moved", output=tensor)
    return told.parts({moves[tensor]: rank for tensor, rank in ranks.items()})


class _Told:
    """A model that nodes are added to."""

    def __init__(self, parts: Parts) -> None:
        self._proto = strip(parts.structure, initializers=False, nodes=False)
        self._weights, self._read = dict(parts.weights), parts.read
        self.nodes = list(strip(parts.structure, initializers=False).graph.node)
        self._opset = {o.domain or "ai.onnx": o.version for o in self._proto.opset_import}.get("ai.onnx", 1)
        self._taken = {*self._weights, *(i.name for i in self._proto.graph.input)}
        self._taken |= {name for node in self.nodes for name in (*node.output, node.name)}
        self._axes: dict[tuple[int, ...], str] = {}

    def node(self, op: str, inputs: Sequence[str], name: str, output: str = "", **attributes: Any) -> str:
        """Add one behind `nodes`; its output, called as it is unless there is a name for it."""
        name = self.free(name)
        output = output or name
        self.nodes.append(onnx.helper.make_node(op, inputs, [output], name, **attributes))
        return output

    def reduced(self, op: str, tensor: str, name: str, axes: tuple[int, ...], keepdims: int = 1) -> str:
        """Add a reduction over `axes`."""
        if self._opset < _AXES_ARE_INPUT[op]:
            return self.node(op, [tensor], name, axes=axes, keepdims=keepdims)
        if axes not in self._axes:
            self._axes[axes] = self.free("axes")
            self._weights[self._axes[axes]] = np.array(axes, np.int64)
        return self.node(op, [tensor, self._axes[axes]], name, keepdims=keepdims)

    def mean(self, tensor: str, rank: int) -> str:
        """That of each channel."""
        axes = tuple(a for a in range(rank) if a != _CHANNELS)
        return self.reduced("ReduceMean", tensor, f"{tensor}_mean", axes)

    def given(self, name: str, rank: int) -> str:
        """A new input, which has as many axes as a tensor of `rank` that is summed over all but its channels."""
        shape = [None if axis == _CHANNELS else 1 for axis in range(rank)]
        name = self.free(name)
        self._proto.graph.input.append(_floats(name, shape))
        return name

    def parts(self, outputs: Mapping[str, int]) -> Parts:
        """The model with these outputs alone, of so many axes each."""
        del self._proto.graph.output[:]
        self._proto.graph.output.extend(_floats(name, [None] * rank) for name, rank in outputs.items())
        self._proto.graph.node.extend(self.nodes)
        return Parts(self._proto, self._weights, self._read)

    def free(self, name: str) -> str:
        """`name`, with a number if it is taken; it is taken from now on."""
        return unique(name, self._taken)


def _floats(name: str, shape: Sequence[int | None]) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
