"""Values of constants: what a Constant node says, and what an operator makes of constant inputs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

Array = NDArray[Any]

SMALL_BYTES = 1 << 20
"""A folded constant may have this size, or twice that of the constants it comes from."""

NEVER = frozenset(
    [
        *(
            "Bernoulli",
            "Multinomial",
            "RandomNormal",
            "RandomNormalLike",
            "RandomUniform",
            "RandomUniformLike",
        ),
        *("If", "Loop", "Scan"),
        *("Conv", "ConvInteger", "ConvTranspose", "QLinearConv", "GRU", "LSTM", "RNN"),
        *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearMatMul"),
        "Dropout",
    ]
)
"""Operators that are not folded: random, with bodies, slow, or (Q/DQ) meant to stay."""


def constant_node_value(node: onnx.NodeProto, name: str) -> TensorProto | None:
    """The tensor, called `name`, that a Constant node stands for; None for a sparse one."""
    for attribute in node.attribute:
        if attribute.name == "value":
            tensor = TensorProto()
            tensor.CopyFrom(attribute.t)
            tensor.name = name
            return tensor
        if attribute.name in ("value_float", "value_floats"):
            floats = attribute.f if attribute.name == "value_float" else list(attribute.floats)
            return numpy_helper.from_array(np.array(floats, dtype=np.float32), name)
        if attribute.name in ("value_int", "value_ints"):
            ints = attribute.i if attribute.name == "value_int" else list(attribute.ints)
            return numpy_helper.from_array(np.array(ints, dtype=np.int64), name)
        if attribute.name in ("value_string", "value_strings"):
            one = attribute.name == "value_string"
            texts = [attribute.s] if one else list(attribute.strings)
            return onnx.helper.make_tensor(name, TensorProto.STRING, () if one else (len(texts),), texts)
    return None


def may_fold(types: Mapping[str, onnx.TypeProto], inputs: Sequence[Array]) -> bool:
    """Whether outputs of these inferred types are worth having as constants (see `SMALL_BYTES`)."""
    total = 0
    if not types:
        return False
    for known in types.values():
        if not known.HasField("tensor_type") or not known.tensor_type.HasField("shape"):
            return False
        dims = known.tensor_type.shape.dim
        if not all(d.HasField("dim_value") for d in dims):
            return False
        element = known.tensor_type.elem_type
        if element == TensorProto.STRING:
            return False
        itemsize = onnx.helper.tensor_dtype_to_np_dtype(element).itemsize
        total += math.prod(d.dim_value for d in dims) * itemsize
    return total <= max(SMALL_BYTES, 2 * sum(i.nbytes for i in inputs))


def reference(
    node: onnx.NodeProto,
    inputs: Mapping[str, Array],
    types: Mapping[str, onnx.TypeProto],
    opsets: Sequence[onnx.OperatorSetIdProto],
) -> list[Array] | None:
    """What onnx's reference implementation makes of `node`; None if it cannot, or not of that type."""
    names = [o for o in node.output if o]
    graph = onnx.helper.make_graph(
        [node],
        "fold",
        [onnx.helper.make_tensor_value_info(n, onnx.helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
         for n, v in inputs.items()],
        [onnx.helper.make_value_info(n, types[n]) for n in names],
    )  # fmt: skip
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = onnx.helper.make_model(graph, opset_imports=opsets)
            results = ReferenceEvaluator(model).run(None, dict(inputs))
    except Exception:  # noqa: BLE001 - whatever it stumbled over, the node simply stays
        return None
    found = []
    for name, result in zip(names, results, strict=True):
        value = np.asarray(result)
        known = types[name].tensor_type
        shape = tuple(d.dim_value for d in known.shape.dim)
        if value.shape != shape or value.dtype != onnx.helper.tensor_dtype_to_np_dtype(known.elem_type):
            return None
        found.append(value)
    return found
