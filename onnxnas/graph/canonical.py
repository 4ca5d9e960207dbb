"""The canonical form of a model and what is known of its tensors, by `rewriters.canonicalise`.

It asks onnx for the types of single nodes in this process; a model comes here only after the child
process has survived the checker and shape inference on all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnx import GraphProto, ModelProto, ValueInfoProto, helper

import rewriters
from onnxnas.errors import ModelError
from onnxnas.graph import binding
from onnxnas.graph.child import Child, strip
from onnxnas.types import Shape


def canonicalise(proto: ModelProto) -> tuple[ModelProto, tuple[str, ...]]:
    """The canonical model and notes on what was done. Raises ModelError."""
    try:
        result = rewriters.canonicalise(proto, None)
    except ValueError as error:
        raise ModelError(f"cannot be brought into canonical form: {error}") from None
    return result.model, result.notes


def infer(
    proto: ModelProto, bound: Mapping[str, Shape | None], child: Child
) -> tuple[dict[str, ValueInfoProto], bool]:
    """What follows for every value of a canonical model from the concrete shapes of its inputs.

    And whether all of it follows at once: then no operand disagrees with another.

    Where shape inference gets stuck on computed shapes, they are computed with the concrete numbers first.
    """
    found = _values(child.infer(binding.concrete(strip(proto), bound)))
    made = [name for node in proto.graph.node for name in node.output if name]
    unknown = [name for name in made if binding.exact(found.get(name)) is None]
    at_once = not unknown
    while unknown:
        # What is known by now may be folded, so that more follows from it.
        more = _folded(proto, bound, child, unknown)
        found |= {name: more[name] for name in unknown if name in more}
        left = [name for name in unknown if binding.exact(found.get(name)) is None]
        if len(left) == len(unknown):
            break
        unknown = left
    return found, at_once


def _folded(
    proto: ModelProto, bound: Mapping[str, Shape | None], child: Child, unknown: Sequence[str]
) -> dict[str, ValueInfoProto]:
    """What is known of values when all that depends on the concrete shapes is folded."""
    concrete = binding.concrete(strip(proto), bound)
    outputs = {output.name for output in concrete.graph.output}
    kept = [ValueInfoProto(name=name) for name in unknown if name not in outputs]
    concrete.graph.output.extend(kept)  # as an output, a value survives folding
    folded = rewriters.canonicalise(concrete, None).model
    more = _values(folded.graph)  # knows operators that onnx has no inference for; else onnx knows more
    inferred = _values(child.infer(strip(folded)))
    more.update((name, value) for name, value in inferred.items() if binding.exact(value) is not None)
    return more


def disagreement(proto: ModelProto, bound: Mapping[str, Shape | None], child: Child) -> str:
    """What is wrong with these shapes of the inputs, once all that they decide is folded; '' for nothing."""
    folded = rewriters.canonicalise(binding.concrete(strip(proto), bound), None).model
    return child.disagreement(strip(folded))


def _values(graph: GraphProto) -> dict[str, ValueInfoProto]:
    """By name; a value that folding made an initializer is known by its shape."""
    found = {
        tensor.name: helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in graph.initializer
    }
    found.update((value.name, value) for value in (*graph.input, *graph.value_info, *graph.output))
    return found
