"""`load`: from a file or a protobuf to a `Graph`, refusing in one line whatever cannot be trusted.

1. read and parse (`source`), judge in pure Python (`validate`), fetch external data (`external`);
2. native checker and shape inference in a child process on the structure without its weights (`child`);
3. canonical form (`canonical`), shapes with all unknown dimensions bound (`binding`);
4. plain values (`convert`, `model`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError, EncodeError
from onnx import GraphProto, ModelProto

import rewriters
from onnxnas.errors import ModelError
from onnxnas.graph import binding, canonical, convert, external, source, tensors, validate
from onnxnas.graph.child import Child, strip
from onnxnas.graph.limits import Limits
from onnxnas.graph.model import Graph, dtype_name
from onnxnas.types import Node, Shape, TensorInfo

# what reading, folding and inference raise about a model that is wrong in a way nobody thought of
_DAMAGE = (
    *(DecodeError, EncodeError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError),
    *(ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError),
)


def load(
    model: str | Path | ModelProto,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    limits: Limits | None = None,
    least_opset: int = 1,
    quantised: bool = False,
) -> Graph:
    """Load a model: a path (str or Path) or a protobuf, which is copied.

    `shapes` gives input shapes by name where the file leaves dimensions open. A model of an opset before
    `least_opset` is converted to it. `quantised`: one without float weights will do, which can only be run.
    Raises ModelError, one line, for whatever is wrong with the model; the file is only read.
    """
    where = "model" if isinstance(model, ModelProto) else str(model)
    try:
        with Child(limits or Limits()) as child:
            return _load(model, shapes, limits or Limits(), child, least_opset, quantised)
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from None
    except _DAMAGE as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise ModelError(f"{where}: the model is damaged ({text[:300]})") from error
    except OSError as error:
        raise ModelError(f"{where}: cannot be read: {error.strerror or error}") from None
    except MemoryError:
        raise ModelError(f"{where}: not enough memory to load the model") from None


def _load(
    model: str | Path | ModelProto,
    given: Mapping[str, Sequence[int]] | None,
    limits: Limits,
    child: Child,
    least_opset: int,
    quantised: bool,
) -> Graph:
    path: Path | None = None
    if isinstance(model, ModelProto):
        proto = ModelProto()
        proto.CopyFrom(model)
        digest = _digest(proto)
    else:
        path = Path(model)
        proto, digest = source.read(path, limits)
    notes = validate.check(proto, limits)
    rewriters.name_domains(proto)
    _layout(proto.graph)
    if any(external.is_external(tensor) for tensor in proto.graph.initializer):
        if path is None:
            raise ModelError(
                "external data in a protobuf has no directory; load the weights or give the path"
            )
        digest = external.read(proto, path.parent, digest, limits)
    stripped = strip(proto)
    child.check(stripped)
    if proto.functions:
        _inline(proto, child.inline(stripped))
        notes += validate.check(proto, limits)
    if not quantised:
        _weights(proto.graph)
    if (opset := _opsets(proto).get("", least_opset)) < least_opset:
        _convert(proto, child.converted(strip(proto), least_opset))
        notes += (f"opset {opset}: converted to {least_opset}, which precision below 32 bits takes",)
    scopes = convert.scopes(proto.graph)
    description = _describe(proto, path)
    proto, more = canonical.canonicalise(proto)
    scopes = {**convert.scopes(proto.graph), **scopes}  # what was taken apart has nodes that were not there
    description["notes"] = (*notes, *more)
    bound = binding.bind(proto.graph, given)
    inferred, at_once = canonical.infer(proto, bound, child)
    if not given and not at_once:
        bound, inferred = _fitting(proto, bound, inferred, child)
    return Graph(
        nodes=_nodes(proto, scopes),
        tensors=_tensors(proto.graph, inferred, bound),
        initializers=tensors.Initializers(proto.graph.initializer),
        inputs=tuple(bound),
        outputs=tuple(value.name for value in proto.graph.output),
        opset=_opsets(proto)[""],
        digest=digest,
        source=description,
        model=proto,
    )


def _fitting(
    proto: ModelProto, bound: dict[str, Shape | None], inferred: dict[str, onnx.ValueInfoProto], child: Child
) -> tuple[dict[str, Shape | None], dict[str, onnx.ValueInfoProto]]:
    """Other sizes for open dimensions, and what follows from them, where the default ones disagree with the weights.

    A table of 77 positions takes no 128 tokens. What came in is given back when no size of the list fits.
    """
    if not canonical.disagreement(proto, bound, child):
        return bound, inferred
    dims = {value.name: binding.declared(value) for value in binding.real_inputs(proto.graph)}
    for shapes in binding.others(dims, bound):
        other = binding.bind(proto.graph, shapes)
        if not canonical.disagreement(proto, other, child):
            return other, canonical.infer(proto, other, child)[0]
    return bound, inferred


def _digest(proto: ModelProto) -> str:
    try:
        return hashlib.sha256(proto.SerializeToString()).hexdigest()
    except (EncodeError, ValueError):
        raise ModelError(
            "a protobuf of more than 2 GB; save it with external data and give the path"
        ) from None


def _inline(proto: ModelProto, inlined: ModelProto) -> None:
    """Take over nodes and imports of the inlined, weightless copy; weights stay where they are."""
    del proto.graph.node[:]
    proto.graph.node.extend(inlined.graph.node)
    del proto.functions[:]
    del proto.opset_import[:]
    proto.opset_import.extend(inlined.opset_import)


def _convert(proto: ModelProto, converted: ModelProto) -> None:
    """Take over what was converted without its weights, and the constants that came with it.

    What onnx's converter leaves out is put in: until opset 10 a pixel lay where its number says (Upsample, Resize).
    """
    if _opsets(proto)[""] <= 10:
        for node in converted.graph.node:
            said = {attribute.name for attribute in node.attribute}
            if node.op_type == "Resize" and "coordinate_transformation_mode" not in said:
                for key, value in (
                    ("coordinate_transformation_mode", "asymmetric"),
                    ("nearest_mode", "floor"),
                ):
                    node.attribute.append(onnx.helper.make_attribute(key, value))
    known = {tensor.name for tensor in proto.graph.initializer}
    known |= {value.name for value in proto.graph.input}
    proto.graph.initializer.extend(t for t in converted.graph.initializer if t.name not in known)
    _inline(proto, converted)
    proto.ir_version = max(proto.ir_version, converted.ir_version)


def _opsets(proto: ModelProto) -> dict[str, int]:
    return {"" if entry.domain == "ai.onnx" else entry.domain: entry.version for entry in proto.opset_import}


_PRODUCTS = frozenset(
    ("Conv", "ConvTranspose", "Gemm", "MatMul") + ("Attention", "FusedConv", "FusedGemm", "FusedMatMul")
)
_PASSING = frozenset(("Constant", "Identity", "Cast", "Transpose", "QuantizeLinear", "DequantizeLinear"))
_QUANTISED = frozenset(
    (
        "QLinearConv",
        "QLinearMatMul",
        "ConvInteger",
        "MatMulInteger",
        "DequantizeLinear",
        "DynamicQuantizeMatMul",
        "MatMulNBits",
        "MatMulBnb4",
        "QAttention",
        "QGemm",
    )
)


def _layout(graph: GraphProto) -> None:
    """Raises ModelError for a file in which ONNX Runtime has laid weights out for the vectors of one processor."""
    node = next((node for node in graph.node if node.domain == "com.microsoft.nchwc"), None)
    if node is not None:
        raise ModelError(
            f"{validate.describe(node)} has its weight in the layout of one processor (com.microsoft.nchwc); "
            "give the original model, or one that was saved with ORT_ENABLE_EXTENDED at most"
        )


def _weights(graph: GraphProto) -> None:
    """Raises ModelError for a quantised model in which no convolution or product has a float weight."""
    floats = {tensor.name for tensor in graph.initializer if tensor.data_type in tensors.FLOATS}
    quantised = ""
    for node in graph.node:
        if node.op_type in _PRODUCTS and not floats.isdisjoint(node.input[:2]):
            return
        if node.op_type in _PASSING and node.output:
            tensor = next((a.t for a in node.attribute if a.name == "value"), None)
            if (tensor is not None and tensor.data_type in tensors.FLOATS) or not floats.isdisjoint(
                node.input[:1]
            ):
                floats.add(node.output[0])
        if node.op_type in _QUANTISED:
            quantised = quantised or validate.describe(node)
    if quantised:
        raise ModelError(
            f"no float weights to work on: the model is quantised already ({quantised}); give the float model"
        )


def _describe(proto: ModelProto, path: Path | None) -> dict[str, Any]:
    producer = " ".join(text for text in (proto.producer_name, proto.producer_version) if text)
    return {
        "path": None if path is None else str(path),
        "producer": producer,
        "ir_version": proto.ir_version,
        "inputs": tuple(_value(value) for value in binding.real_inputs(proto.graph)),
        "outputs": tuple(_value(value) for value in proto.graph.output),
    }


def _value(value: onnx.ValueInfoProto) -> dict[str, Any]:
    shape = binding.declared(value)
    dtype = dtype_name(tensors.numpy_dtype(value.type.tensor_type.elem_type))
    return {"name": value.name, "shape": None if shape is None else list(shape), "dtype": dtype}


def _nodes(proto: ModelProto, scopes: Mapping[str, str]) -> tuple[Node, ...]:
    opsets = _opsets(proto)
    nodes = []
    for node in proto.graph.node:
        scope = next((scopes[name] for name in node.output if name in scopes), "")
        nodes.append(convert.node(node, node.name, opsets, scope))
    return tuple(nodes)


def _tensors(
    graph: GraphProto, inferred: Mapping[str, onnx.ValueInfoProto], bound: Mapping[str, Shape | None]
) -> dict[str, TensorInfo]:
    """Every value of the graph with its type, its symbolic and its concrete shape."""
    said = {value.name: value for value in (*graph.value_info, *graph.output, *graph.input)}
    found = {}
    for name in (*bound, *(name for node in graph.node for name in node.output if name)):
        values = [value for value in (inferred.get(name), said.get(name)) if value is not None]
        kind = next((k for value in values if (k := value.type.tensor_type.elem_type)), 0)
        shape = bound[name] if name in bound else binding.exact(inferred.get(name))
        symbolic = binding.declared(said[name]) if name in said else None
        found[name] = TensorInfo(name, tensors.numpy_dtype(kind), shape, symbolic)
    for tensor in graph.initializer:
        dims = tuple(tensor.dims)
        found[tensor.name] = TensorInfo(tensor.name, tensors.numpy_dtype(tensor.data_type), dims, dims)
    return found
