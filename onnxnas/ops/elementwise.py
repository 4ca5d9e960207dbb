"""Element by element: channels stay what they are; operands of one position are the same channel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxnas.ops.merge import broadcast
from onnxnas.ops.registry import register
from onnxnas.ops.spec import BatchNorm, Flow, OpSpec, TorchFunction
from onnxnas.types import Node

if TYPE_CHECKING:
    from torch import Tensor

Constants = Mapping[int, NDArray[Any]]


def elementwise_flow(flow: Flow, node: Node) -> None:
    """All inputs broadcast together; every output has the result's labels."""
    shape = flow.shape(node.outputs[0])
    if shape is None:
        flow.freeze_all(node, "its output shape is unknown")
        return
    layout = broadcast(flow, node, [x for x in node.inputs if x], shape)
    for output in node.outputs:
        flow.set(output, layout)


def first_input_flow(flow: Flow, node: Node) -> None:
    """The other inputs are settings (Clip bounds, Dropout ratio)."""
    flow.set(node.outputs[0], flow.layout(node.inputs[0]))


def _unary(name: str, make: Callable[[Node], Callable[[Tensor], Tensor]]) -> OpSpec:
    def torch_function(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
        function = make(node)
        return lambda inputs: function(inputs[0])

    return OpSpec(name, first_input_flow, torch_function)


def _plain(name: str, path: str) -> OpSpec:
    """A unary operator that is one torch function without settings."""

    def make(node: Node) -> Callable[[Tensor], Tensor]:
        import torch

        owner: Any = torch
        for part in path.split("."):
            owner = getattr(owner, part)
        return owner

    return _unary(name, make)


def _activation(name: str, function: Callable[..., Any], **settings: tuple[str, float | str]) -> OpSpec:
    """A unary operator with attributes: torch keyword -> (ONNX attribute, default)."""

    def make(node: Node) -> Callable[[Tensor], Tensor]:
        keywords = {
            k: node.attributes.get(attribute, default) for k, (attribute, default) in settings.items()
        }
        return lambda x: function(x, **keywords)

    return _unary(name, make)


def _functional(name: str) -> Callable[..., Any]:
    def call(x: Tensor, **keywords: Any) -> Any:
        import torch

        return getattr(torch.nn.functional, name)(x, **keywords)

    return call


def _hard_sigmoid(x: Tensor, alpha: float, beta: float) -> Any:
    return (x * alpha + beta).clamp(0.0, 1.0)


def _swish(x: Tensor, alpha: float) -> Any:
    import torch

    return x * torch.sigmoid(x * alpha)


def _gelu(x: Tensor, approximate: str | bytes) -> Any:
    import torch

    return torch.nn.functional.gelu(x, approximate=str(approximate))


def _clip_torch(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
    low, high = node.attributes.get("min"), node.attributes.get("max")

    def clip(inputs: Sequence[Any]) -> Tensor:
        import torch

        x = inputs[0]
        lower = inputs[1] if len(inputs) > 1 and inputs[1] is not None else low
        upper = inputs[2] if len(inputs) > 2 and inputs[2] is not None else high
        if lower is None and upper is None:
            return x
        if isinstance(lower, torch.Tensor) or isinstance(upper, torch.Tensor):
            x = x if lower is None else torch.maximum(x, torch.as_tensor(lower, dtype=x.dtype))
            return x if upper is None else torch.minimum(x, torch.as_tensor(upper, dtype=x.dtype))
        return x.clamp(lower, upper)

    return clip


_TORCH_TYPES = {
    1: "float32", 2: "uint8", 3: "int8", 5: "int16", 6: "int32", 7: "int64",
    9: "bool", 10: "float16", 11: "float64", 16: "bfloat16",
}  # fmt: skip  # onnx.TensorProto.DataType


def _cast(node: Node) -> Callable[[Tensor], Tensor]:
    import torch

    kind = getattr(torch, _TORCH_TYPES[int(node.attributes["to"])])
    return lambda x: x.to(kind)


def _binary(name: str, make: Callable[[Node], Callable[..., Any]]) -> OpSpec:
    def torch_function(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
        import torch

        function = make(node)
        fixed = {i: torch.tensor(np.array(v)) for i, v in constants.items()}

        def call(inputs: Sequence[Any]) -> Any:
            return function(*(fixed[i] if x is None else x for i, x in enumerate(inputs)))

        return call

    return OpSpec(name, elementwise_flow, torch_function)


def _named(path: str) -> Callable[[Node], Callable[..., Any]]:
    def make(node: Node) -> Callable[..., Any]:
        import torch

        return getattr(torch, path)

    return make


def _division(node: Node) -> Callable[..., Any]:
    import torch

    def divide(a: Tensor, b: Tensor) -> Tensor:
        return torch.div(a, b) if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")

    return divide


def _modulo(node: Node) -> Callable[..., Any]:
    import torch

    return torch.fmod if node.attributes.get("fmod", 0) else torch.remainder


def _fold(path: str) -> Callable[[Node], Callable[..., Any]]:
    """A variadic operator from its binary torch function."""

    def make(node: Node) -> Callable[..., Any]:
        import torch

        function = getattr(torch, path)

        def call(first: Tensor, *others: Tensor) -> Tensor:
            for other in others:
                first = function(first, other)
            return first

        return call

    return make


def _mean(node: Node) -> Callable[..., Any]:
    return lambda *xs: sum(xs[1:], xs[0]) / len(xs)


def _prelu(node: Node) -> Callable[..., Any]:
    import torch

    return lambda x, slope: torch.where(x >= 0, x, x * slope)


def _power(node: Node) -> Callable[..., Any]:
    import torch

    def power(base: Tensor, exponent: Tensor) -> Tensor:
        if exponent.numel() == 1 and not exponent.requires_grad:
            value = float(exponent)
            return base * base if value == 2.0 else torch.pow(base, value)
        return torch.pow(base, exponent)

    return power


PLAIN = {
    "Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh", "Erf": "erf", "Exp": "exp", "Log": "log",
    "Sqrt": "sqrt", "Abs": "abs", "Neg": "neg", "Reciprocal": "reciprocal", "Floor": "floor",
    "Ceil": "ceil", "Round": "round", "Sign": "sign", "Not": "logical_not", "IsNaN": "isnan",
    "Sin": "sin", "Cos": "cos", "Atan": "atan", "Identity": "Tensor.contiguous",
    "Mish": "nn.functional.mish", "Softplus": "nn.functional.softplus", "Softsign": "nn.functional.softsign",
    "HardSwish": "nn.functional.hardswish",
}  # fmt: skip

BINARY = {
    "Add": "add", "Sub": "sub", "Mul": "mul", "And": "logical_and", "Or": "logical_or", "Xor": "logical_xor",
    "Equal": "eq", "Greater": "gt", "GreaterOrEqual": "ge", "Less": "lt", "LessOrEqual": "le", "Where": "where",
}  # fmt: skip

register(
    *(_plain(name, path) for name, path in PLAIN.items()),
    *(_binary(name, _named(path)) for name, path in BINARY.items()),
    _binary("Div", _division),
    _binary("Mod", _modulo),
    _binary("Pow", _power),
    _binary("PRelu", _prelu),
    _binary("Max", _fold("maximum")),
    _binary("Min", _fold("minimum")),
    _binary("Sum", _fold("add")),
    _binary("Mean", _mean),
    _activation("LeakyRelu", _functional("leaky_relu"), negative_slope=("alpha", 0.01)),
    _activation("Elu", _functional("elu"), alpha=("alpha", 1.0)),
    _activation("Celu", _functional("celu"), alpha=("alpha", 1.0)),
    _activation("Selu", _functional("selu")),
    _activation("HardSigmoid", _hard_sigmoid, alpha=("alpha", 0.2), beta=("beta", 0.5)),
    _activation("Swish", _swish, alpha=("alpha", 1.0)),
    _activation("Gelu", _gelu, approximate=("approximate", "none")),
    _unary("Cast", _cast),
    _unary("Dropout", lambda node: lambda x: x),
    OpSpec("Clip", first_input_flow, _clip_torch),
)


def constant_scalar(values: NDArray[Any] | None, default: float) -> float:
    """A setting given as a constant tensor of one element."""
    return default if values is None or not np.size(values) else float(np.asarray(values).reshape(-1)[0])
