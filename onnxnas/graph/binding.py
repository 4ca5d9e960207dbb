"""Shapes: what the file declares, what unknown dimensions are bound to, what follows from that.

Unknown input dimensions get batch 1, spatial 224, sequence 128, or what the caller gives. One symbol has
one value wherever it appears; `a + b` is understood. A dimension that a weight decides (the channels of a
convolution, the features of a matrix product) takes that weight's size.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from onnx import GraphProto, ModelProto, ValueInfoProto

from onnxnas.errors import ModelError
from onnxnas.types import Shape

BATCH, SPATIAL, SEQUENCE = 1, 224, 128

# sizes that networks with an open dimension are often made for, tried in this order when the default does not fit
_SPATIAL_SIZES = (256, 320, 512, 640, 192, 128, 96, 64, 48, 32)
_SEQUENCE_SIZES = (512, 256, 1024, 64, 32, 16, 8, 4000, 16000, 1)

Declared = tuple[int | str | None, ...]

_HINTS = (
    (re.compile(r"batch|^[nb]$|^bs$", re.I), BATCH),
    (re.compile(r"height|width|^[hw]$|resolution", re.I), SPATIAL),
    (re.compile(r"seq|len|time|token|^[tsl]$", re.I), SEQUENCE),
    (re.compile(r"channel|^c$", re.I), 3),
)


def declared(value: ValueInfoProto) -> Declared | None:
    """The dimensions of a value as the file has them; None for an unknown rank. A size below 1 is unknown."""
    kind = value.type.tensor_type
    if value.type.WhichOneof("value") != "tensor_type" or not kind.HasField("shape"):
        return None
    dims: list[int | str | None] = []
    for dim in kind.shape.dim:
        which = dim.WhichOneof("value")
        if which == "dim_value":
            dims.append(dim.dim_value if dim.dim_value > 0 else None)
        else:
            dims.append(dim.dim_param or None if which else None)
    return tuple(dims)


def exact(value: ValueInfoProto | None) -> Shape | None:
    """The dimensions of a value when all are known (a size of 0 is possible here), else None."""
    if value is None or not value.type.tensor_type.HasField("shape"):
        return None
    dims = value.type.tensor_type.shape.dim
    if any(dim.WhichOneof("value") != "dim_value" or dim.dim_value < 0 for dim in dims):
        return None
    return tuple(dim.dim_value for dim in dims)


def real_inputs(graph: GraphProto) -> list[ValueInfoProto]:
    """The inputs that are not initializers."""
    weights = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in weights]


def bind(graph: GraphProto, given: Mapping[str, Sequence[int]] | None) -> dict[str, Shape | None]:
    """A concrete shape for every real input; None where the rank is unknown and not given.

    Raises ModelError for a given shape that is not of an input, of another rank, or against the file.
    """
    inputs = {value.name: declared(value) for value in real_inputs(graph)}
    fixed = {name: tuple(int(size) for size in shape) for name, shape in (given or {}).items()}
    symbols: dict[str, int] = {}
    for name, shape in fixed.items():
        _judge(name, shape, inputs)
        for size, dim in zip(shape, inputs[name] or (), strict=False):
            if isinstance(dim, str) and symbols.setdefault(dim, size) != size:
                raise ModelError(
                    f"shape {list(shape)} of input {name!r}: {dim!r} would be {size} and {symbols[dim]}"
                )
    weights = _features(graph)
    states = _batches_of_states(inputs)
    bound: dict[str, Shape | None] = dict(fixed)
    for name, dims in inputs.items():  # dimensions in first place name the batch
        if dims and isinstance(dims[0], str) and name not in fixed and not _known(dims[0]) and len(dims) > 1:
            symbols.setdefault(dims[0], BATCH)
    for name, dims in inputs.items():
        if name in fixed:
            continue
        if dims is None:
            bound[name] = None
            continue
        sizes: list[int] = []
        for axis, dim in enumerate(dims):
            known = _evaluate(dim, symbols) if isinstance(dim, str) else dim
            if known is None and (name, axis) in states:
                known = BATCH
            if known is None:
                known = weights.get((name, axis)) or _default(dim, axis, len(dims))
            if isinstance(dim, str):
                symbols[dim] = known
            sizes.append(known)
        bound[name] = tuple(sizes)
    return {name: bound[name] for name in inputs}


def others(
    dims: Mapping[str, Declared | None], bound: Mapping[str, Shape | None]
) -> Iterator[dict[str, Shape]]:
    """Shapes by input to give instead when a model does not fit those that open dimensions are bound to by default.

    All dimensions bound to the default of a picture's side or of a sequence's length change together; nothing is
    yielded for a model without any.
    """
    for spatial, sequence in zip(_SPATIAL_SIZES, _SEQUENCE_SIZES, strict=True):
        sizes = {SPATIAL: spatial, SEQUENCE: sequence}
        found: dict[str, Shape] = {}
        for name, own in dims.items():
            shape = bound[name]
            if own is None or shape is None:
                continue
            new = tuple(s if isinstance(d, int) else sizes.get(s, s) for d, s in zip(own, shape, strict=True))
            if new != shape:
                found[name] = new
        if found:
            yield found


def concrete(stripped: ModelProto, bound: Mapping[str, Shape | None]) -> ModelProto:
    """Write the bound shapes into a model's inputs, in place, and forget what it says of other values."""
    for value in stripped.graph.input:
        shape = bound.get(value.name)
        if shape is not None:
            kind = value.type.tensor_type
            kind.ClearField("shape")
            for size in shape:
                kind.shape.dim.add().dim_value = size
            if not shape:
                kind.shape.SetInParent()
    del stripped.graph.value_info[:]
    for value in stripped.graph.output:
        if value.type.WhichOneof("value") == "tensor_type":
            value.type.tensor_type.ClearField("shape")
    return stripped


def _judge(name: str, shape: Shape, inputs: Mapping[str, Declared | None]) -> None:
    if name not in inputs:
        raise ModelError(f"a shape is given for {name!r}, which is not an input; inputs: {', '.join(inputs)}")
    dims = inputs[name]
    if any(size < 1 for size in shape):
        raise ModelError(f"shape {list(shape)} of input {name!r} has a dimension below 1")
    if dims is not None and (
        len(dims) != len(shape)
        or any(isinstance(d, int) and d != s for d, s in zip(dims, shape, strict=True))
    ):
        text = ", ".join("?" if d is None else str(d) for d in dims)
        raise ModelError(
            f"shape {list(shape)} does not fit input {name!r}, which the file declares as [{text}]"
        )


def _known(symbol: str) -> bool:
    return any(pattern.search(symbol) for pattern, _ in _HINTS)


def _default(dim: int | str | None, axis: int, rank: int) -> int:
    if isinstance(dim, str):
        for pattern, size in _HINTS:
            if pattern.search(dim):
                return size
    if axis == 0:
        return BATCH
    return SPATIAL if rank >= 4 else SEQUENCE


def _batches_of_states(inputs: Mapping[str, Declared | None]) -> set[tuple[str, int]]:
    """(input, axis) where a state, layers x batch x units, has the batch: beside inputs that begin with it."""
    begins = any(dims and len(dims) > 1 and not isinstance(dims[0], int) for dims in inputs.values())
    return {
        (name, 1)
        for name, dims in inputs.items()
        if dims is not None
        and [isinstance(d, int) for d in dims] == [True, False, True]
        and begins
        and not (isinstance(dims[1], str) and _known(dims[1]))
    }


def _evaluate(symbol: str, symbols: Mapping[str, int]) -> int | None:
    """The value of a symbol or a sum of symbols and integers, if all are known."""
    if symbol in symbols:
        return symbols[symbol]
    total = 0
    terms = symbol.split("+")
    if len(terms) < 2:
        return None
    for term in map(str.strip, terms):
        value = int(term) if term.isascii() and term.isdigit() else symbols.get(term)
        if value is None:
            return None
        total += value
    return total


def _features(graph: GraphProto) -> dict[tuple[str, int], int]:
    """(input, axis) -> size, where the first operator's weight leaves no choice."""
    weights = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    ranks = {value.name: len(declared(value) or ()) for value in real_inputs(graph)}
    found: dict[tuple[str, int], int] = {}
    for node in graph.node:
        if len(node.input) < 2 or node.input[0] not in ranks or node.input[1] not in weights:
            continue
        name, weight = node.input[0], weights[node.input[1]]
        if node.op_type == "Conv" and len(weight) > 2:
            group = next((a.i for a in node.attribute if a.name == "group"), 1)
            found[name, 1] = weight[1] * group
        elif node.op_type == "MatMul" and len(weight) >= 2:
            found[name, ranks[name] - 1] = weight[-2]
        elif node.op_type == "Gemm" and len(weight) == 2:
            swapped = any(a.name == "transB" and a.i for a in node.attribute)
            if not any(a.name == "transA" and a.i for a in node.attribute):
                found[name, 1] = weight[1] if swapped else weight[0]
    return found
