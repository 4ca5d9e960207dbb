"""A network in floats to the same network in numbers of 8 bits.

Weights are symmetric, int8, with a scale for each output channel, and of 7 bits where 8 are too many (`reach`);
activations uint8, one scale and zero point for a tensor; biases int32 with the product of both scales, as integer
arithmetic takes them (Jacob et al. 2018, section 2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import rewriters
from onnxnas import graph
from onnxnas.errors import ModelError
from onnxnas.precision.plan import Plan, plan
from onnxnas.precision.ranges import Range
from onnxnas.precision.roles import Role
from onnxnas.types import Node

Floats = NDArray[np.floating[Any]]
MOST = 127  # of a weight; -128 is left out, so that its negative has 8 bits too
_MOST_BIAS = float(2**31 - 1)
_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, eq=False)
class Layer:
    """A node, the tensor of `rank` axes that it makes, its channels on the second, and its bias (channels,)."""

    node: str
    tensor: str
    rank: int
    bias: Floats


class Quantisable:
    """One network, and what becomes of it at a precision, with weights of at most `most` steps.

    Raises ModelError when nothing of it can have 8 bits.
    """

    def __init__(self, parts: rewriters.Parts, precision: Mapping[str, str], most: int = MOST) -> None:
        self.parts, self.precision, self.most = parts, precision, most
        self._nodes, self._constants, outputs = graph.view(parts)
        self._plan: Plan = plan(self._nodes, self._constants, outputs, precision)
        if not self._plan.weighted:
            raise ModelError(
                "nothing can be computed in 8 bits here: no Conv, Gemm or MatMul with a constant float weight "
                f"has precision int8 ({dict(precision)})"
            )

    @property
    def tensors(self) -> tuple[str, ...]:
        """Those whose ranges `quantised` must be told."""
        return self._plan.sources

    @property
    def nodes(self) -> tuple[str, ...]:
        """Those whose weights get 8 bits."""
        return tuple(self._plan.weighted)

    @property
    def biased(self) -> tuple[Layer, ...]:
        """Those that have a bias for each channel, or may be given one."""
        found = []
        for node in self._nodes:
            part = self._plan.weighted.get(node.name)
            if part is not None and node.op_type != "MatMul":
                weight = self._constants[node.inputs[1]]
                given = len(node.inputs) > 2 and node.inputs[2]
                bias = self._constants[node.inputs[2]] if given else np.zeros(weight.shape[part.axis])
                found.append(Layer(node.name, node.outputs[0], weight.ndim, bias))
        return tuple(found)

    def quantised(self, ranges: Mapping[str, Range]) -> rewriters.Parts:
        """The network in 8 bits. Raises ModelError, when its opset has no scale for each channel, for example."""
        edits: list[rewriters.Edit] = []
        for node in self._nodes:
            if node.name in self._plan.weighted:
                activation = ranges[self._plan.source(node.inputs[0])]
                edits += self._weights(node, self._plan.weighted[node.name], activation)
        for point in self._plan.points:
            found = ranges[point.source]
            edits.append(
                rewriters.Round(point.tensor, found.scale, found.zero_point, point.readers, point.apart)
            )
        return applied(self.parts, edits)

    def _weights(self, node: Node, role: Role, activation: Range) -> list[rewriters.Edit]:
        weight = self._constants[node.inputs[1]]
        bias = self._constants[node.inputs[2]] if len(node.inputs) > 2 and node.inputs[2] else None
        scale = weight_scale(weight, role.axis, bias, activation.scale, self.most)
        edits: list[rewriters.Edit] = [
            rewriters.StoreIntegers(
                node.name, 1, integers(weight, scale, role.axis, np.int8, self.most), scale, role.axis
            )
        ]
        if bias is not None:
            steps = np.broadcast_to(scale * np.float32(activation.scale), bias.shape)
            edits.append(
                rewriters.StoreIntegers(
                    node.name, 2, integers(bias, steps, 0, np.int32, _MOST_BIAS), steps, 0
                )
            )
        return edits


def applied(parts: rewriters.Parts, edits: Sequence[rewriters.Edit]) -> rewriters.Parts:
    """The edited network. Raises ModelError for a refusal."""
    result = rewriters.apply(parts, edits)
    if isinstance(result, rewriters.Refusal):
        raise ModelError(f"{result.node}: {result.reason}" if result.node else result.reason)
    return result.parts


def weight_scale(weight: Floats, axis: int, bias: Floats | None, activation: float, most: int) -> Floats:
    """(channels,) steps of a weight along `axis`, so large that weight (`most`) and bias fit their integers."""
    others = tuple(a for a in range(weight.ndim) if a != axis)
    steps = np.abs(weight).max(axis=others) / most
    if bias is not None:
        steps = np.maximum(steps, np.abs(bias) / (_MOST_BIAS * activation) * 1.001)
    return np.asarray(np.maximum(steps, _TINY / min(activation, 1.0) * 2), np.float32)


def integers(values: Floats, scale: Floats, axis: int, kind: Any, most: float) -> NDArray[np.integer[Any]]:
    """`values` in steps of `scale`, one for each position along `axis`."""
    spread = scale.reshape([-1 if a == axis else 1 for a in range(values.ndim)]).astype(np.float64)
    return np.clip(np.rint(values / spread), -most, most).astype(kind)
