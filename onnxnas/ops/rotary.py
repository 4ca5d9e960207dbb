"""RotaryEmbedding: pairs of each head's channels are turned by an angle that the position gives.

The sines and cosines have no heads: heads pass whole, their channels stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from onnxnas.ops import heads
from onnxnas.ops.attention_torch import separate, together
from onnxnas.ops.registry import register
from onnxnas.ops.spec import BatchNorm, Flow, Kept, OpSpec, Shapes, TorchFunction
from onnxnas.types import Node
from rewriters.edits import Edit, SetAttribute

if TYPE_CHECKING:
    from torch import Tensor

Constants = Mapping[int, NDArray[Any]]
_COS = {"": 1, "com.microsoft": 2}
"""domain -> the input with the cosines; the sines follow. Positions are the other optional input."""


def _count(node: Node, shapes: Shapes) -> int:
    """How many heads the operand holds; without a number, those that the cosines cover in full."""
    shape, cos = shapes(node.inputs[0]), shapes(node.inputs[_COS[node.domain]])
    if shape is None or cos is None:
        raise ValueError("a shape is unknown")
    if len(shape) == 4:
        return shape[1]
    return int(node.attributes.get("num_heads", 0)) or shape[2] // (2 * cos[-1])


def _flow(flow: Flow, node: Node) -> None:
    x, *rest = node.inputs
    ids = heads.labels(flow, node, x, _count(node, flow.shape))
    for other in rest:
        flow.freeze(other, node, "angles cannot change")
    shape = flow.shape(x)
    assert shape is not None
    flow.set(node.outputs[0], heads.layout(ids, shape))


def _edits(node: Node, kept: Kept) -> list[Edit]:
    count = int(node.attributes.get("num_heads", 0))
    if not count:
        return []
    now = heads.left(kept, node.inputs[0], count)
    return [] if now == count else [SetAttribute(node.name, "num_heads", now)]


def turned(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    """B x heads x S x size, of which the first 2r channels are turned by angles of B x S x r (or S x r)."""
    import torch

    half = cos.shape[-1]
    cos, sin = cos.unsqueeze(-3), sin.unsqueeze(-3)
    first, passed = x[..., : 2 * half], x[..., 2 * half :]
    if interleaved:
        a, b = first[..., 0::2], first[..., 1::2]
        y = torch.stack((a * cos - b * sin, b * cos + a * sin), -1).flatten(-2)
    else:
        a, b = first.chunk(2, -1)
        y = torch.cat((a * cos - b * sin, b * cos + a * sin), -1)
    return torch.cat((y, passed), -1) if passed.shape[-1] else y


def _torch(place: int) -> Callable[[Node, Constants, BatchNorm], TorchFunction]:
    """`place` of the cosines: with 1 the positions come last, with 2 second."""

    def torch_function(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
        import torch

        count = int(node.attributes.get("num_heads", 0))
        interleaved = bool(node.attributes.get("interleaved", 0))

        def run(inputs: Sequence[Any]) -> Tensor:
            x, cos, sin = inputs[0], inputs[place], inputs[place + 1]
            positions = inputs[1] if place == 2 else (*inputs, None)[3]
            flat = x.ndim == 3
            y = separate(x, count or x.shape[-1] // (2 * cos.shape[-1]))
            if positions is not None:
                if positions.numel() == 1:  # where the first token stands
                    positions = positions.reshape(()) + torch.arange(y.shape[2], device=x.device)
                cos, sin = cos[positions.long()], sin[positions.long()]
            y = turned(y, cos, sin, interleaved)
            return together(y) if flat else y

        return run

    return torch_function


register(
    OpSpec("RotaryEmbedding", _flow, _torch(1), _edits, since=23),
    OpSpec("RotaryEmbedding", _flow, _torch(2), _edits, domain="com.microsoft"),
)
