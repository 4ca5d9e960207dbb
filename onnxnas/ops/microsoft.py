"""Activations of the domain com.microsoft, as ONNX Runtime's tools for transformers put them into files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from onnxnas.ops.elementwise import first_input_flow
from onnxnas.ops.merge import broadcast
from onnxnas.ops.registry import register
from onnxnas.ops.spec import BatchNorm, Flow, OpSpec, TorchFunction
from onnxnas.types import Node

if TYPE_CHECKING:
    from torch import Tensor

Constants = Mapping[int, NDArray[Any]]
DOMAIN = "com.microsoft"


def _biased_flow(flow: Flow, node: Node) -> None:
    """The bias, if there is one, has a value for each position of the last axis."""
    shape = flow.shape(node.inputs[0])
    if shape is None:
        flow.freeze_all(node, "its shape is unknown")
        return
    flow.set(node.outputs[0], broadcast(flow, node, [x for x in node.inputs if x], shape))


def _gelu(approximate: str) -> Callable[[Node, Constants, BatchNorm], TorchFunction]:
    def torch_function(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
        from torch.nn.functional import gelu

        def run(inputs: Sequence[Any]) -> Tensor:
            x = inputs[0]
            if len(inputs) > 1 and inputs[1] is not None:
                x = x + inputs[1]
            return gelu(x, approximate=approximate)

        return run

    return torch_function


def _quick_gelu(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
    import torch

    alpha = float(node.attributes.get("alpha", 1.702))
    return lambda inputs: inputs[0] * torch.sigmoid(inputs[0] * alpha)


register(
    OpSpec("Gelu", first_input_flow, _gelu("none"), domain=DOMAIN),
    OpSpec("BiasGelu", _biased_flow, _gelu("none"), domain=DOMAIN),
    OpSpec("FastGelu", _biased_flow, _gelu("tanh"), domain=DOMAIN),
    OpSpec("QuickGelu", first_input_flow, _quick_gelu, domain=DOMAIN),
)
