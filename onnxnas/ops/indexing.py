"""Operators that move elements by computed positions, or make tensors: no channel passes through them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxnas.ops.elementwise import constant_scalar
from onnxnas.ops.registry import register
from onnxnas.ops.spec import BatchNorm, OpSpec, TorchFunction, opaque
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


def _scatter_nd(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    x, index, updates = inputs
    return x.index_put(tuple(_wrapped(index[..., k], x.shape[k]) for k in range(index.shape[-1])), updates)


def _cumsum(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    x, axis = inputs[0], int(inputs[1])
    backward = node.attributes.get("reverse", 0)
    total = x.flip(axis).cumsum(axis).flip(axis) if backward else x.cumsum(axis)
    return (total - x if node.attributes.get("exclusive", 0) else total).to(x.dtype)


def _range(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    import torch

    return torch.arange(*(x.item() for x in inputs), dtype=inputs[0].dtype)


def _constant_of_shape(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    import torch

    value = node.attributes.get("value")
    fill = torch.zeros(1) if value is None else torch.tensor(np.array(value))
    return fill.reshape(()).expand(tuple(int(v) for v in inputs[0])).clone()


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
    x, k = inputs[0], int(constant_scalar(inputs[1].numpy(), 1))
    values, index = x.topk(k, int(node.attributes.get("axis", -1)), bool(node.attributes.get("largest", 1)))
    return values, index


def _einsum(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    import torch

    return torch.einsum(str(node.attributes["equation"]), *inputs)


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


_FUNCTIONS: dict[str, Plain] = {
    "GatherElements": _gather_elements, "GatherND": _gather_nd, "ScatterND": _scatter_nd, "CumSum": _cumsum,
    "Range": _range, "ConstantOfShape": _constant_of_shape, "OneHot": _one_hot, "Trilu": _trilu,
    "TopK": _top_k, "Einsum": _einsum,
}  # fmt: skip

register(*(OpSpec(name, opaque, _factory(function)) for name, function in _FUNCTIONS.items()))
