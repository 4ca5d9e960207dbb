"""Example inputs: drawn from the shapes, of a kind that the model can digest.

Floats are normal; integers stay inside the table they index, or are a value that the model compares them
with; masks and booleans are ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxnas.errors import ModelError
from onnxnas.graph import binding
from onnxnas.graph.model import Graph
from onnxnas.types import Shape, TensorInfo

# operators behind which the values are still the same integers, perhaps elsewhere or with others
_PASS = frozenset(
    {"Cast", "Clip", "Concat", "Expand", "Flatten", "Identity", "Max", "Min", "Pad", "Reshape", "Slice"}
    | {"Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
)


def other_shapes(graph: Graph) -> Iterator[dict[str, Shape]]:
    """Shapes to give instead when a runtime refuses those that open dimensions are bound to (`binding.others`)."""
    declared = {name: graph.tensors[name].declared for name in graph.inputs}
    return binding.others(declared, {name: graph.tensors[name].shape for name in graph.inputs})


def example_inputs(
    graph: Graph,
    *,
    seed: int = 0,
    batch: int = 1,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, NDArray[Any]]:
    """One array per input, the same for the same seed. `batch` samples where the batch is not fixed.

    Raises ModelError for an input without a known shape or of a type that cannot be drawn.
    """
    rng = np.random.default_rng(seed)
    sizes = _shapes(graph, batch, shapes or {})
    return {name: _draw(graph, graph.tensors[name], sizes[name], rng) for name in graph.inputs}


def _shapes(graph: Graph, batch: int, given: Mapping[str, Sequence[int]]) -> dict[str, Shape]:
    for name in given:
        if name not in graph.inputs:
            raise ModelError(
                f"a shape is given for {name!r}, which is not an input; inputs: {', '.join(graph.inputs)}"
            )
    declared = {name: graph.tensors[name].declared for name in graph.inputs}
    symbols = {dims[0] for dims in declared.values() if dims and isinstance(dims[0], str)}
    found: dict[str, Shape] = {}
    for name in graph.inputs:
        if name in given:
            found[name] = tuple(int(size) for size in given[name])
            continue
        shape, dims = graph.tensors[name].shape, declared[name]
        if shape is None:
            raise ModelError(f"input {name!r} has no known shape; give one: --shape {name}=1,3,224,224")
        if batch != 1 and dims is not None:
            free = [(axis == 0 and dim is None) or dim in symbols for axis, dim in enumerate(dims)]
            shape = tuple(batch if f else size for f, size in zip(free, shape, strict=True))
        found[name] = shape
    return found


def _draw(graph: Graph, info: TensorInfo, shape: Shape, rng: np.random.Generator) -> NDArray[Any]:
    dtype = info.dtype
    if dtype is None or dtype == np.dtype(object):
        raise ModelError(f"input {info.name!r} is of a type that no example can be drawn for")
    lowered = info.name.lower()
    if dtype == np.bool_ or "mask" in lowered:
        return np.ones(shape, dtype)
    if dtype.kind not in "iu":
        return rng.standard_normal(shape, dtype=np.float32).astype(dtype)
    table, constant = _use(graph, info.name)
    if constant is not None:
        return np.full(shape, constant, dtype)
    if table is None:
        table = 256 if dtype.itemsize == 1 and dtype.kind == "u" else 2
    if "position" in lowered and shape:
        return np.broadcast_to(np.arange(shape[-1]) % table, shape).astype(dtype)
    return rng.integers(0, table, shape).astype(dtype)


def _use(graph: Graph, name: str) -> tuple[int | None, int | None]:
    """(rows of the smallest table indexed by an integer input, a constant it is compared with)."""
    sizes: list[int] = []
    constants: list[int] = []
    seen, waiting = {name}, [name]
    while waiting:
        tensor = waiting.pop()
        for node in graph.consumers(tensor):
            inputs = node.inputs
            if node.op_type in ("Gather", "GatherElements", "GatherND") and inputs[1:2] == (tensor,):
                shape = graph.tensors[inputs[0]].shape
                axis = node.attributes.get("axis", 0) if node.op_type != "GatherND" else 0
                if shape:
                    sizes.append(shape[axis])
            elif node.op_type == "RotaryEmbedding" and inputs.index(tensor) in (1, 3):
                cosines = graph.tensors[inputs[2 if node.domain else 1]].shape
                if cosines:
                    sizes.append(cosines[0])
            elif node.op_type == "OneHot" and inputs[0] == tensor and inputs[1] in graph.initializers:
                sizes.append(int(graph.initializers[inputs[1]].reshape(-1)[0]))
            elif node.op_type == "Equal":
                other = inputs[1] if inputs[0] == tensor else inputs[0]
                value = graph.initializers.get(other)
                if value is not None and value.size == 1:
                    constants.append(int(value.reshape(-1)[0]))
            elif node.op_type in _PASS and tensor in inputs:
                fresh = [output for output in node.outputs if output and output not in seen]
                seen.update(fresh)
                waiting.extend(fresh)
    if sizes:
        return max(1, min(sizes)), None
    return None, constants[0] if constants else None
