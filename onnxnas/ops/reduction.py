"""Reductions: a reduced axis loses its labels; what is reduced over is what is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from onnxnas.ops.channels import Factor
from onnxnas.ops.registry import register
from onnxnas.ops.spec import BatchNorm, Flow, OpSpec, TorchFunction, attribute_or_input
from onnxnas.types import Node

if TYPE_CHECKING:
    pass

Constants = Mapping[int, NDArray[Any]]


def _axes(node: Node, constants: Constants, rank: int) -> tuple[int, ...]:
    """The axes that are reduced, non-negative and sorted."""
    if node.op_type.startswith("Arg"):
        return (int(node.attributes.get("axis", 0)) % rank,)
    given = attribute_or_input(node, "axes", 1, constants)
    if given is None or len(given) == 0:
        return () if node.attributes.get("noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(sorted(int(a) % rank for a in given))


def _flow(flow: Flow, node: Node) -> None:
    x = node.inputs[0]
    shape = flow.shape(x)
    if shape is None:
        flow.freeze_all(node, "its shape is unknown")
        return
    second = node.inputs[1] if len(node.inputs) > 1 else ""
    values = flow.constant(second) if second else None
    if second and values is None:
        flow.freeze_all(node, "the axes are not constant")
        return
    over = _axes(node, {} if values is None else {1: values}, len(shape))
    if node.op_type.startswith("Arg"):
        flow.set(node.outputs[0], flow.static(flow.layout(x), over, node, "its position is an output"))
        return
    mixed = [a for f in flow.layout(x) if not set(f.axes) <= set(over) for a in f.axes if a in over]
    layout = flow.static(flow.layout(x), mixed, node, "reduced over")
    layout = tuple(f for f in layout if not set(f.axes) & set(over))
    if not node.attributes.get("keepdims", 1):
        layout = tuple(Factor(tuple(a - sum(o < a for o in over) for a in f.axes), f.ids) for f in layout)
    flow.set(node.outputs[0], layout)


_FUNCTIONS: dict[str, Callable[[Any, tuple[int, ...], bool], Any]] = {
    "ReduceMean": lambda x, over, keep: x.mean(over, keepdim=keep),
    "ReduceSum": lambda x, over, keep: x.sum(over, keepdim=keep),
    "ReduceMax": lambda x, over, keep: x.amax(over, keepdim=keep),
    "ReduceMin": lambda x, over, keep: x.amin(over, keepdim=keep),
    "ReduceL1": lambda x, over, keep: x.abs().sum(over, keepdim=keep),
    "ReduceL2": lambda x, over, keep: x.norm(2, over, keep),  # of zeros it has a gradient
    "ReduceSumSquare": lambda x, over, keep: x.square().sum(over, keepdim=keep),
    "ReduceLogSumExp": lambda x, over, keep: x.logsumexp(over, keepdim=keep),
    "ArgMax": lambda x, over, keep: x.argmax(over[0], keepdim=keep),
    "ArgMin": lambda x, over, keep: x.argmin(over[0], keepdim=keep),
}


def _reduce_prod(x: Any, over: tuple[int, ...], keep: bool) -> Any:
    for axis in reversed(over):
        x = x.prod(axis, keepdim=keep)
    return x


_FUNCTIONS["ReduceProd"] = _reduce_prod


def _torch(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
    function, keep = _FUNCTIONS[node.op_type], bool(node.attributes.get("keepdims", 1))

    def reduce(inputs: Sequence[Any]) -> Any:
        x = inputs[0]
        over = _axes(node, constants, x.ndim)
        return function(x, over, keep) if over else x

    return reduce


register(*(OpSpec(name, _flow, _torch) for name in _FUNCTIONS))
