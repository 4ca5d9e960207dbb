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


def _unary(name: str, make: Callable[[Node], Callable[[Tensor], Tensor]], since: int = 1) -> OpSpec:
    def torch_function(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
        function = make(node)
        return lambda inputs: function(inputs[0])

    return OpSpec(name, first_input_flow, torch_function, since=since)


def _plain(name: str, path: str, since: int = 1) -> OpSpec:
    """A unary operator that is one torch function without settings."""

    def make(node: Node) -> Callable[[Tensor], Tensor]:
        import torch

        owner: Any = torch
        for part in path.split("."):
            owner = getattr(owner, part)
        return owner

    return _unary(name, make, since)


def _activation(
    name: str, function: Callable[..., Any], since: int = 1, **settings: tuple[str, float | str]
) -> OpSpec:
    """A unary operator with attributes: torch keyword -> (ONNX attribute, default)."""

    def make(node: Node) -> Callable[[Tensor], Tensor]:
        keywords = {
            k: node.attributes.get(attribute, default) for k, (attribute, default) in settings.items()
        }
        return lambda x: function(x, **keywords)

    return _unary(name, make, since)


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


def _thresholded_relu(x: Tensor, alpha: float) -> Any:
    import torch

    return torch.nn.functional.threshold(x, alpha, 0.0)


def _shrink(x: Tensor, bias: float, lambd: float) -> Any:
    import torch

    inner = torch.where(x > lambd, x - bias, torch.zeros_like(x))
    return torch.where(x < -lambd, x + bias, inner).to(x.dtype)


def _is_inf(x: Tensor, negative: int, positive: int) -> Any:
    import torch

    return (torch.isneginf(x) & bool(negative)) | (torch.isposinf(x) & bool(positive))


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


TORCH_TYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64",
    9: "bool", 10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 16: "bfloat16",
}  # fmt: skip  # onnx.TensorProto.DataType


def _cast(node: Node) -> Callable[[Tensor], Tensor]:
    import torch

    kind = getattr(torch, TORCH_TYPES[int(node.attributes["to"])])
    return lambda x: x.to(kind)


def _binary(name: str, make: Callable[[Node], Callable[..., Any]], since: int = 1) -> OpSpec:
    def torch_function(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
        import torch

        function = make(node)
        fixed = {i: torch.tensor(np.array(v)) for i, v in constants.items()}

        def call(inputs: Sequence[Any]) -> Any:
            return function(*(fixed[i] if x is None else x for i, x in enumerate(inputs)))

        return call

    return OpSpec(name, elementwise_flow, torch_function, since=since)


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


def _shift(node: Node) -> Callable[..., Any]:
    """Bits that leave at one end are lost; a signed number keeps its sign when shifted right."""
    import torch

    left = str(node.attributes["direction"]) == "LEFT"

    def shift(x: Tensor, by: Tensor) -> Tensor:
        wide, by = _signed(x), _signed(by)
        if left:
            return torch.bitwise_left_shift(wide, by).to(x.dtype)
        y = torch.bitwise_right_shift(wide, by)
        if x.dtype == torch.uint64:  # as int64 its highest bit is a sign, copies of which came in
            y = y & (torch.bitwise_left_shift(torch.ones_like(by), (64 - by).clamp(min=0)) - 1)
        return y.to(x.dtype)

    return shift


def _bitwise_not(node: Node) -> Callable[[Tensor], Tensor]:
    import torch

    return lambda x: torch.bitwise_not(_signed(x)).to(x.dtype)


def _signed(x: Tensor) -> Tensor:
    """The same bits as int64 where torch does not calculate with the unsigned type."""
    import torch

    return x.to(torch.int64) if x.dtype in (torch.uint16, torch.uint32, torch.uint64) else x


PLAIN = {
    "Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh", "Erf": "erf", "Exp": "exp", "Log": "log",
    "Sqrt": "sqrt", "Abs": "abs", "Neg": "neg", "Reciprocal": "reciprocal", "Floor": "floor",
    "Ceil": "ceil", "Round": "round", "Sign": "sign", "Not": "logical_not", "IsNaN": "isnan",
    "Sin": "sin", "Cos": "cos", "Atan": "atan", "Identity": "Tensor.contiguous",
    "Mish": "nn.functional.mish", "Softplus": "nn.functional.softplus", "Softsign": "nn.functional.softsign",
    "HardSwish": "nn.functional.hardswish",
}  # fmt: skip

# named alike in torch; the opset that brought them
TRIGONOMETRIC = {
    "Acos": 7, "Asin": 7, "Tan": 7, "Acosh": 9, "Asinh": 9, "Atanh": 9, "Cosh": 9, "Sinh": 9,
}  # fmt: skip

BINARY = {
    "Add": "add", "Sub": "sub", "Mul": "mul", "And": "logical_and", "Or": "logical_or", "Xor": "logical_xor",
    "Equal": "eq", "Greater": "gt", "GreaterOrEqual": "ge", "Less": "lt", "LessOrEqual": "le", "Where": "where",
}  # fmt: skip

register(
    *(_plain(name, path) for name, path in PLAIN.items()),
    *(_plain(name, name.lower(), since) for name, since in TRIGONOMETRIC.items()),
    *(_binary(name, _named(path)) for name, path in BINARY.items()),
    *(_binary(f"Bitwise{kind}", _named(f"bitwise_{kind.lower()}"), 18) for kind in ("And", "Or", "Xor")),
    _unary("BitwiseNot", _bitwise_not, 18),
    _binary("BitShift", _shift, 11),
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
    _activation("ThresholdedRelu", _thresholded_relu, 10, alpha=("alpha", 1.0)),
    _activation("Shrink", _shrink, 9, bias=("bias", 0.0), lambd=("lambd", 0.5)),
    _activation("IsInf", _is_inf, 10, negative=("detect_negative", 1), positive=("detect_positive", 1)),
    _activation("Swish", _swish, alpha=("alpha", 1.0)),
    _activation("Gelu", _gelu, approximate=("approximate", "none")),
    _unary("Cast", _cast),
    _unary("Dropout", lambda node: lambda x: x),
    OpSpec("Clip", first_input_flow, _clip_torch),
)


def constant_scalar(values: NDArray[Any] | None, default: float) -> float:
    """A setting given as a constant tensor of one element."""
    return default if values is None or not np.size(values) else float(np.asarray(values).reshape(-1)[0])
