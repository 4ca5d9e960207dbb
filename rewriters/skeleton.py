"""A model without its weights: what graph work needs, at a size that can be serialised and copied.

`strip` keeps names, types and shapes of the main graph's initializers and leaves the numbers behind, so
that models above protobuf's 2 GB limit can be inferred and rewired, and nothing copies weights twice.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import TensorProto


def empty_tensor(tensor: TensorProto) -> TensorProto:
    """A tensor of the same name, type and shape, without values (not a valid initializer by itself)."""
    return TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)


def strip(model: onnx.ModelProto, *, initializers: bool = True, nodes: bool = True) -> onnx.ModelProto:
    """A copy of `model` with `empty_tensor`s (or none) for initializers, with or without nodes, without value_info."""
    out = onnx.ModelProto(
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        domain=model.domain,
        model_version=model.model_version,
        doc_string=model.doc_string,
    )
    out.opset_import.extend(model.opset_import)
    out.metadata_props.extend(model.metadata_props)
    out.functions.extend(model.functions)
    graph = model.graph
    out.graph.name = graph.name
    out.graph.doc_string = graph.doc_string
    out.graph.input.extend(graph.input)
    out.graph.output.extend(graph.output)
    if nodes:
        out.graph.node.extend(graph.node)
    out.graph.sparse_initializer.extend(graph.sparse_initializer)
    out.graph.quantization_annotation.extend(graph.quantization_annotation)
    out.graph.metadata_props.extend(graph.metadata_props)
    if initializers:
        out.graph.initializer.extend(empty_tensor(t) for t in graph.initializer)
    return out


def bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that `node` holds (If, Loop, Scan), not those inside them."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            yield from attribute.graphs


def captures(node: onnx.NodeProto) -> set[str]:
    """The outer tensors that the bodies of `node` read, at any depth."""
    found: set[str] = set()
    for body in bodies(node):
        local = {t.name for t in body.input} | {t.name for t in body.initializer}
        local |= {t.values.name for t in body.sparse_initializer}
        read = {t.name for t in body.output}
        for inner in body.node:
            local.update(inner.output)
            read.update(inner.input)
            read |= captures(inner)
        found |= read - local
    found.discard("")
    return found
