"""Whether an edited model still fits together, told by onnx's shape inference; and its outputs' shapes.

Weights above a few hundred numbers take part as typed inputs, so the size of the model does not matter.
"""

from __future__ import annotations

import math
import re

import onnx
from onnx import TensorProto

from rewriters import arrays
from rewriters.parts import Parts
from rewriters.skeleton import strip

_SHOWN = 256  # elements up to which inference may need the numbers themselves
_CULPRIT = re.compile(r"node name: ([^)]*)\)")


def infer(model: Parts) -> onnx.ModelProto | str:
    """`model` without large weights but with inferred types, whatever it declares for its outputs; or the error."""
    small = strip(model.structure, initializers=False)
    for name, weight in model.weights.items():
        kind, shape = arrays.form(weight)
        elsewhere = isinstance(weight, TensorProto) and weight.data_location == TensorProto.EXTERNAL
        if elsewhere or math.prod(shape) > _SHOWN:
            small.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, shape))
        elif isinstance(weight, TensorProto):
            small.graph.initializer.append(weight)
        else:
            arrays.write(small.graph.initializer.add(), name, weight)
    for output in small.graph.output:
        if output.type.HasField("tensor_type"):
            output.type.tensor_type.ClearField("shape")
    try:
        return onnx.shape_inference.infer_shapes(small, strict_mode=True, data_prop=True)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError) as problem:
        return str(problem)


def settle(model: Parts, original: Parts) -> tuple[str, str]:
    """Correct the declared output shapes of `model`, an edited `original`; ('', '') or (reason, node).

    Only what inference can say of `original` is asked of `model`. A declared dimension that is a symbol, or
    agrees with what is inferred, stays.
    """
    found = infer(model)
    if isinstance(found, str):
        if isinstance(infer(original), str):
            return "", ""
        culprit = _CULPRIT.search(found)
        reason = " ".join(found.split())[:400]
        return f"the edits do not fit together: {reason}", culprit.group(1) if culprit else ""
    for declared, inferred in zip(model.structure.graph.output, found.graph.output, strict=True):
        ours, theirs = declared.type.tensor_type.shape.dim, inferred.type.tensor_type.shape.dim
        if len(ours) != len(theirs):
            continue
        for mine, new in zip(ours, theirs, strict=True):
            if mine.HasField("dim_value") and new.HasField("dim_value"):
                mine.dim_value = new.dim_value
    return "", ""
