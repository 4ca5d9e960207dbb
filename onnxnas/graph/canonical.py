"""The canonical form of a model, by `rewriters.canonicalise`."""

from __future__ import annotations

from onnx import AttributeProto, ModelProto

try:
    from rewriters import canonicalise as _full
except ImportError:
    _full = None


def canonicalise(proto: ModelProto) -> tuple[ModelProto, tuple[str, ...]]:
    if _full is not None:
        result = _full(proto, None)
        return result.model, tuple(result.notes)
    graph = proto.graph
    kept = []
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].type == AttributeProto.TENSOR:
            tensor = graph.initializer.add()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
        else:
            kept.append(type(node).FromString(node.SerializeToString()))
    del graph.node[:]
    graph.node.extend(kept)
    seen: set[str] = set()
    for index, node in enumerate(graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{index}"
        seen.add(node.name)
    return proto, ()
