"""Operators that move elements by computed positions, or make tensors: no channel passes through them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxnas.ops.channels import Factor
from onnxnas.ops.elementwise import TORCH_TYPES
from onnxnas.ops.registry import register
from onnxnas.ops.spec import BatchNorm, Flow, OpSpec, TorchFunction, opaque
from onnxnas.types import Node

if TYPE_CHECKING:
    from torch import Tensor

Constants = Mapping[int, NDArray[Any]]
Plain = Callable[[Node, Sequence["Tensor"]], "Tensor"]


def _wrapped(index: Tensor, length: int) -> Tensor:
    import torch

    return torch.where(index < 0, index + length, index).long()


def _gather_elements(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    x, index = inputs
    axis = int(node.attributes.get("axis", 0))
    return x.gather(axis, _wrapped(index, x.shape[axis]))


def _gather_nd(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    import torch

    x, index = inputs
    batch = int(node.attributes.get("batch_dims", 0))
    if batch:
        lead = [torch.arange(n).reshape([-1 if i == k else 1 for i in range(index.ndim - 1)])
                for k, n in enumerate(x.shape[:batch])]  # fmt: skip
    else:
        lead = []
    return x[(*lead, *(_wrapped(index[..., k], x.shape[batch + k]) for k in range(index.shape[-1])))]


_REDUCTIONS = {"add": "sum", "mul": "prod", "min": "amin", "max": "amax"}


def _scattered(node: Node, x: Tensor, axis: int, index: Tensor, updates: Tensor) -> Tensor:
    """`updates` put at `index` along `axis`, or combined with what is there."""
    how = str(node.attributes.get("reduction", "none"))
    if how == "none":
        return x.scatter(axis, index, updates)
    return x.scatter_reduce(axis, index, updates, _REDUCTIONS[how])


def _scatter_elements(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    x, index, updates = inputs
    axis = int(node.attributes.get("axis", 0))
    return _scattered(node, x, axis, _wrapped(index, x.shape[axis]), updates)


def _scatter_nd(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    """Row by row, the leading axes that the index covers taken as one."""
    import torch

    x, index, updates = inputs
    covered = index.shape[-1]
    row = torch.zeros_like(index[..., 0], dtype=torch.int64)
    for k in range(covered):
        row = row * x.shape[k] + _wrapped(index[..., k], x.shape[k])
    flat = x.reshape(math.prod(x.shape[:covered]), -1)
    row = row.reshape(-1, 1).expand(-1, flat.shape[1])
    return _scattered(node, flat, 0, row, updates.reshape(row.shape)).reshape(x.shape)


def _cumsum(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    x, axis = inputs[0], int(inputs[1])
    backward = node.attributes.get("reverse", 0)
    total = x.flip(axis).cumsum(axis).flip(axis) if backward else x.cumsum(axis)
    return (total - x if node.attributes.get("exclusive", 0) else total).to(x.dtype)


def _range(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    import torch

    return torch.arange(*(x.item() for x in inputs), dtype=inputs[0].dtype, device=inputs[0].device)


def _constant_of_shape(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    import torch

    value = node.attributes.get("value")
    fill = torch.zeros(1) if value is None else torch.tensor(np.array(value))
    return fill.to(inputs[0].device).reshape(()).expand(tuple(int(v) for v in inputs[0])).clone()


def _one_hot(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    import torch

    index, depth, values = inputs[0].long(), int(inputs[1]), inputs[2]
    axis = int(node.attributes.get("axis", -1))
    hot = torch.nn.functional.one_hot(_wrapped(index, depth), depth).bool()
    result = torch.where(hot, values[1], values[0])
    return result if axis in (-1, index.ndim) else result.movedim(-1, axis)


def _trilu(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    k = int(inputs[1]) if len(inputs) > 1 else 0
    return inputs[0].triu(k) if node.attributes.get("upper", 1) else inputs[0].tril(k)


def _top_k(node: Node, inputs: Sequence[Tensor]) -> Any:
    x = inputs[0]
    k = int(inputs[1]) if len(inputs) > 1 else int(node.attributes["k"])  # an attribute before opset 10
    values, index = x.topk(k, int(node.attributes.get("axis", -1)), bool(node.attributes.get("largest", 1)))
    return values, index


def _non_zero(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    return inputs[0].nonzero().t()


def _compress(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    x, condition = inputs
    axis = node.attributes.get("axis")
    if axis is None:
        x, axis = x.reshape(-1), 0
    return x.index_select(int(axis), condition.nonzero().reshape(-1))


def _eye_like(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    import torch

    x, kind = inputs[0], node.attributes.get("dtype", 0)
    y = torch.zeros(
        x.shape, dtype=getattr(torch, TORCH_TYPES[int(kind)]) if kind else x.dtype, device=x.device
    )
    y.diagonal(int(node.attributes.get("k", 0))).fill_(1)
    return y


def _reverse_axes(node: Node) -> tuple[int, int]:
    """(time, batch)."""
    return int(node.attributes.get("time_axis", 0)), int(node.attributes.get("batch_axis", 1))


def _reverse_flow(flow: Flow, node: Node) -> None:
    """Samples are turned round one by one: what lies on other axes than time and batch passes."""
    x, lengths = node.inputs
    flow.freeze(lengths, node, "it says how much is reversed")
    flow.set(node.outputs[0], flow.static(flow.layout(x), _reverse_axes(node), node, "reversed along it"))


def _reverse_sequence(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    import torch

    time, batch = _reverse_axes(node)
    x = inputs[0].movedim((time, batch), (0, 1))
    step = torch.arange(x.shape[0], device=x.device).unsqueeze(1)
    lengths = inputs[1].long().unsqueeze(0)
    source = torch.where(step < lengths, lengths - 1 - step, step)
    sample = torch.arange(x.shape[1], device=x.device).unsqueeze(0)
    return x[source, sample].movedim((0, 1), (time, batch))


def _factory(function: Plain) -> Callable[[Node, Constants, BatchNorm], TorchFunction]:
    """Integer constants become tensors again: these operators compute with them."""

    def torch_function(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
        import torch

        fixed = {i: torch.tensor(np.array(v)) for i, v in constants.items()}

        def run(inputs: Sequence[Any]) -> Tensor:
            given = [fixed.get(i) if x is None else x for i, x in enumerate(inputs)]
            return function(node, [x for x in given if x is not None])

        return run

    return torch_function


def _gather_nd_flow(flow: Flow, node: Node) -> None:
    """Axes behind those that the index picks from pass: rows of a table, picked by their numbers."""
    x, index = node.inputs
    shape, places = flow.shape(x), flow.shape(index)
    if shape is None or places is None:
        flow.freeze_all(node, "a shape is unknown")
        return
    flow.freeze(index, node, "it says what is picked")
    first = int(node.attributes.get("batch_dims", 0)) + places[-1]
    layout = flow.static(flow.data(x, node), range(first), node, "picked from by an index")
    by = len(places) - 1 - first
    flow.set(node.outputs[0], [Factor(tuple(a + by for a in f.axes), f.ids) for f in layout])


_FUNCTIONS: dict[str, Plain] = {
    "GatherElements": _gather_elements, "GatherND": _gather_nd, "ScatterND": _scatter_nd, "CumSum": _cumsum,
    "Range": _range, "ConstantOfShape": _constant_of_shape, "OneHot": _one_hot, "Trilu": _trilu,
    "TopK": _top_k,
}  # fmt: skip

register(
    *(
        OpSpec(name, _gather_nd_flow if name == "GatherND" else opaque, _factory(function))
        for name, function in _FUNCTIONS.items()
    ),
    OpSpec("Scatter", opaque, _factory(_scatter_elements), since=9),  # its name until opset 11
    OpSpec("ScatterElements", opaque, _factory(_scatter_elements), since=11),
    OpSpec("NonZero", opaque, _factory(_non_zero), since=9),
    OpSpec("Compress", opaque, _factory(_compress), since=9),
    OpSpec("EyeLike", opaque, _factory(_eye_like), since=9),
    OpSpec("ReverseSequence", _reverse_flow, _factory(_reverse_sequence), since=10),
)
