"""The light operators of shape arithmetic, on numbers and on symbols alike.

Each function takes numpy arrays (numeric, or of dtype object where some element is a `Dim`) and gives the
outputs. `Unknown` is raised where the answer is not known or the operator is used in an unusual way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from rewriters.symbols import Dim, Unknown, divide, product, rounded, same

Array = NDArray[Any]
Inputs = Sequence[Array | None]
Attributes = Mapping[str, Any]
Function = Callable[[Attributes, Inputs], list[Array]]


def integers(value: Array | None, otherwise: Any = None) -> list[int] | None:
    """A constant input or attribute as a list of ints; `otherwise` if absent. Raises Unknown."""
    if value is None:
        return None if otherwise is None else [int(v) for v in np.atleast_1d(otherwise)]
    if value.dtype == object and any(isinstance(v, Dim) for v in value.flat):
        raise Unknown
    return [int(v) for v in np.atleast_1d(value)]


def given(inputs: Inputs, index: int) -> Array | None:
    """Input `index`, or None where it is absent."""
    return inputs[index] if index < len(inputs) else None


def need(inputs: Inputs, index: int = 0) -> Array:
    """Input `index`. Raises Unknown if it is absent."""
    value = given(inputs, index)
    if value is None:
        raise Unknown
    return value


def _gather(attributes: Attributes, inputs: Inputs) -> list[Array]:
    data, indices, axis = need(inputs), need(inputs, 1), int(attributes.get("axis", 0))
    if indices.dtype == object:
        indices = np.array(integers(indices.reshape(-1)), dtype=np.int64).reshape(indices.shape)
    return [np.asarray(np.take(data, indices, axis=axis))]


def slices(attributes: Attributes, inputs: Inputs, rank: int) -> dict[int, slice]:
    """What a Slice keeps of each axis that it names. Raises Unknown."""
    starts = integers(given(inputs, 1), attributes.get("starts"))
    ends = integers(given(inputs, 2), attributes.get("ends"))
    if starts is None or ends is None:
        raise Unknown
    axes = integers(given(inputs, 3), attributes.get("axes")) or list(range(len(starts)))
    steps = integers(given(inputs, 4)) or [1] * len(starts)
    found = {}
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        # going backwards, an end before the first element cannot be said with a negative number
        stop = None if step < 0 and end < -(2**31) + 2 else end
        found[axis % rank] = slice(start, stop, step)
    return found


def _slice(attributes: Attributes, inputs: Inputs) -> list[Array]:
    data = need(inputs)
    index = [slice(None)] * data.ndim
    for axis, window in slices(attributes, inputs, data.ndim).items():
        index[axis] = window
    return [data[tuple(index)]]


def _concat(attributes: Attributes, inputs: Inputs) -> list[Array]:
    parts = [need(inputs, i) for i in range(len(inputs))]
    return [np.concatenate(parts, axis=int(attributes.get("axis", 1)))]


def _axes(attributes: Attributes, inputs: Inputs) -> list[int] | None:
    return integers(given(inputs, 1), attributes.get("axes"))


def _unsqueeze(attributes: Attributes, inputs: Inputs) -> list[Array]:
    axes = _axes(attributes, inputs)
    if axes is None:
        raise Unknown
    return [np.expand_dims(need(inputs), tuple(axes))]


def _squeeze(attributes: Attributes, inputs: Inputs) -> list[Array]:
    axes = _axes(attributes, inputs)
    return [np.squeeze(need(inputs), None if axes is None else tuple(axes))]


def _reshape(attributes: Attributes, inputs: Inputs) -> list[Array]:
    data = need(inputs)
    target = integers(given(inputs, 1), attributes.get("shape"))
    if target is None:
        raise Unknown
    if not attributes.get("allowzero", 0):
        target = [data.shape[i] if t == 0 else t for i, t in enumerate(target)]
    return [data.reshape(target)]


def _transpose(attributes: Attributes, inputs: Inputs) -> list[Array]:
    return [np.transpose(need(inputs), attributes.get("perm"))]


def _flatten(attributes: Attributes, inputs: Inputs) -> list[Array]:
    data, axis = need(inputs), int(attributes.get("axis", 1))
    axis = axis % data.ndim if axis < 0 else axis
    return [data.reshape(int(np.prod(data.shape[:axis])), -1)]


def _split(attributes: Attributes, inputs: Inputs) -> list[Array]:
    data, axis = need(inputs), int(attributes.get("axis", 0))
    sizes = integers(given(inputs, 1), attributes.get("split"))
    if sizes is None:
        raise Unknown
    return [np.asarray(p) for p in np.split(data, np.cumsum(sizes)[:-1].tolist(), axis=axis)]


def _expand(attributes: Attributes, inputs: Inputs) -> list[Array]:
    data, target = need(inputs), integers(need(inputs, 1)) or []
    return [np.array(np.broadcast_to(data, np.broadcast_shapes(data.shape, tuple(target))))]


def _cast(attributes: Attributes, inputs: Inputs) -> list[Array]:
    data, to = need(inputs), int(attributes["to"])
    if data.dtype != object:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(to)
        if data.dtype.kind not in "biuf" or dtype.kind not in "biuf":
            raise Unknown
        return [data.astype(dtype)]
    if to in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE):
        return [_each(lambda v: v if isinstance(v, Dim) else float(v), data)]
    if to in (onnx.TensorProto.INT64, onnx.TensorProto.INT32):
        return [_each(_whole, data)]
    raise Unknown


def _whole(value: Any) -> Any:
    if isinstance(value, Dim):
        return rounded(value, "Floor") if value.positive else _unknown()
    return int(value)


def _unknown() -> Any:
    raise Unknown


def _each(function: Callable[..., Any], *arrays: Array) -> Array:
    """`function` of the elements of broadcast arrays, as an object array."""
    parts = np.broadcast_arrays(*arrays)
    out = np.empty(parts[0].shape, dtype=object)
    for index in np.ndindex(out.shape):
        out[index] = function(*(_item(p[index]) for p in parts))
    return out


def _item(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _binary(on_numbers: Callable[[Array, Array], Array], on_symbols: Callable[[Any, Any], Any]) -> Function:
    def function(_: Attributes, inputs: Inputs) -> list[Array]:
        a, b = need(inputs), need(inputs, 1)
        if a.dtype != object and b.dtype != object:
            return [np.asarray(on_numbers(a, b))]
        return [_each(on_symbols, a, b)]

    return function


def _division(_: Attributes, inputs: Inputs) -> list[Array]:
    a, b = need(inputs), need(inputs, 1)
    if a.dtype != object and b.dtype != object:
        if a.dtype.kind == "f":
            with np.errstate(all="ignore"):
                return [np.asarray(a / b)]
        if not b.all():
            raise Unknown
        quotient = np.abs(a) // np.abs(b)
        return [np.asarray(np.where((a < 0) == (b < 0), quotient, -quotient).astype(a.dtype))]
    whole = not any(isinstance(v, float) for part in (a, b) for v in part.flat) and all(
        part.dtype.kind in "iuO" for part in (a, b)
    )
    return [_each(lambda x, y: divide(x, y, integer=whole), a, b)]


def _compare(on_numbers: Callable[[Array, Array], Array], on_symbols: Callable[[Any, Any], Any]) -> Function:
    inner = _binary(on_numbers, on_symbols)

    def function(attributes: Attributes, inputs: Inputs) -> list[Array]:
        return [np.asarray(inner(attributes, inputs)[0].astype(bool))]

    return function


def _extreme(best: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def function(a: Any, b: Any) -> Any:
        if isinstance(a, Dim) or isinstance(b, Dim):
            return a if isinstance(a, Dim) and a == b else _unknown()
        return best(a, b)

    return function


def _where(_: Attributes, inputs: Inputs) -> list[Array]:
    condition, a, b = need(inputs), need(inputs, 1), need(inputs, 2)
    if condition.dtype == object:
        raise Unknown
    return [np.asarray(np.where(condition, a, b))]


def _round(name: str) -> Function:
    def function(_: Attributes, inputs: Inputs) -> list[Array]:
        data = need(inputs)
        if data.dtype == object:
            return [_each(lambda v: rounded(v, name), data)]
        return [np.asarray(np.floor(data) if name == "Floor" else np.ceil(data))]

    return function


def _reduce_prod(attributes: Attributes, inputs: Inputs) -> list[Array]:
    data, axes = need(inputs), _axes(attributes, inputs)
    if data.dtype != object or data.ndim != 1 or axes not in (None, [0], [-1]):
        raise Unknown
    out = np.empty((1,) if attributes.get("keepdims", 1) else (), dtype=object)
    out[...] = product(data)
    return [out]


def _range(_: Attributes, inputs: Inputs) -> list[Array]:
    start, limit, step = (need(inputs, i) for i in range(3))
    if any(part.dtype == object for part in (start, limit, step)) or step == 0:
        raise Unknown
    return [np.arange(start.item(), limit.item(), step.item(), dtype=start.dtype)]


def _constant_of_shape(attributes: Attributes, inputs: Inputs) -> list[Array]:
    shape = integers(need(inputs)) or []
    value = attributes.get("value")
    fill = np.zeros(1, np.float32) if value is None else onnx.numpy_helper.to_array(value)
    return [np.full(shape, fill.reshape(-1)[0])]


def _mod(a: Any, b: Any) -> Any:
    return _unknown() if isinstance(a, Dim) or isinstance(b, Dim) or b == 0 else a % b


FUNCTIONS: dict[str, Function] = {
    "Identity": lambda _, inputs: [need(inputs)],
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Flatten": _flatten,
    "Split": _split,
    "Expand": _expand,
    "Cast": _cast,
    "Add": _binary(lambda a, b: a + b, lambda a, b: a + b),
    "Sub": _binary(lambda a, b: a - b, lambda a, b: a - b),
    "Mul": _binary(lambda a, b: a * b, lambda a, b: a * b),
    "Div": _division,
    "Max": _binary(np.maximum, _extreme(max)),
    "Min": _binary(np.minimum, _extreme(min)),
    "Equal": _compare(lambda a, b: a == b, same),
    "Where": _where,
    "Floor": _round("Floor"),
    "Ceil": _round("Ceil"),
    "Neg": lambda _, inputs: [np.asarray(-need(inputs))],
    "ReduceProd": _reduce_prod,
    "Range": _range,
    "ConstantOfShape": _constant_of_shape,
}


def evaluate(op_type: str, attributes: Attributes, inputs: Inputs) -> list[Array]:
    """The outputs of a light operator. Raises Unknown where they cannot be told."""
    function = FUNCTIONS.get(op_type)
    if function is None or (op_type in ("Max", "Min") and len(inputs) != 2):
        raise Unknown
    try:
        return function(attributes, inputs)
    except (ValueError, IndexError, TypeError, KeyError, ZeroDivisionError, OverflowError) as problem:
        raise Unknown from problem
