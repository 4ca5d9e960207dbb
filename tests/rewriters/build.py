"""Small models for the tests of rewriters, and ONNX Runtime to run them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int | str | None]],
    outputs: Sequence[str],
    weights: Mapping[str, Any],
    *,
    opset: int = 17,
    ir: int = 8,
    types: Mapping[str, int] | None = None,
    domains: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    """A model; inputs and outputs are float tensors unless `types` says otherwise; outputs have a rank only."""
    types = types or {}
    opsets = [helper.make_opsetid(d, v) for d, v in {"": opset, **(domains or {})}.items()]
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(n, types.get(n, TensorProto.FLOAT), s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, types.get(n, TensorProto.FLOAT), None) for n in outputs],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=ir)
    for output, inferred in zip(
        graph.output, onnx.shape_inference.infer_shapes(proto).graph.output, strict=True
    ):
        dims = [None] * len(inferred.type.tensor_type.shape.dim)  # the rank, which a file must declare
        kind = helper.make_tensor_type_proto(output.type.tensor_type.elem_type, dims)
        next(o for o in proto.graph.output if o.name == output.name).type.CopyFrom(kind)
    return proto


def run(proto: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """The outputs in ONNX Runtime, without its own optimisations."""
    onnx.checker.check_model(proto)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found: list[Array] = session.run(None, dict(feeds))
    return found


def close(a: Sequence[Array], b: Sequence[Array], tolerance: float = 1e-5) -> None:
    """Outputs agree, relative to the largest value of each."""
    assert len(a) == len(b)
    for first, second in zip(a, b, strict=True):
        assert first.shape == second.shape
        assert first.dtype == second.dtype
        scale = max(float(np.abs(second).max(initial=0)), 1e-6)
        assert float(np.abs(first - second).max(initial=0)) <= tolerance * scale


def values(proto: onnx.ModelProto) -> dict[str, Array]:
    """The initializers of a model."""
    return {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}


def floats(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    """Normal numbers."""
    return rng.standard_normal(shape).astype(np.float32)


def residual(
    rng: np.random.Generator, channels: int, hidden: int, blocks: int, skip: frozenset[int] = frozenset()
) -> onnx.ModelProto:
    """x -> stem -> blocks of conv3x3, ReLU, conv3x3, add -> y; tensors s0 .. s<blocks>; `skip` leaves out."""
    weights: dict[str, Array] = {"stem.w": floats(rng, channels, 3, 3, 3)}
    nodes = [helper.make_node("Conv", ["x", "stem.w"], ["s0"], "stem", pads=[1] * 4)]
    last = "s0"
    for i in range(blocks):
        w: dict[str, Array] = {
            f"b{i}.w1": floats(rng, hidden, channels, 3, 3) / 5,
            f"b{i}.b1": floats(rng, hidden),
            f"b{i}.w2": floats(rng, channels, hidden, 3, 3) / 5,
        }
        if i in skip:
            continue
        weights |= w
        nodes += [
            helper.make_node("Conv", [last, f"b{i}.w1", f"b{i}.b1"], [f"h{i}"], f"b{i}.conv1", pads=[1] * 4),
            helper.make_node("Relu", [f"h{i}"], [f"r{i}"], f"b{i}.relu"),
            helper.make_node("Conv", [f"r{i}", f"b{i}.w2"], [f"c{i}"], f"b{i}.conv2", pads=[1] * 4),
            helper.make_node("Add", [last, f"c{i}"], [f"s{i + 1}"], f"b{i}.add"),
        ]
        last = f"s{i + 1}"
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["y"], "pool"))
    return model(nodes, {"x": ["N", 3, 6, 6]}, ["y"], weights)


def ops(proto: onnx.ModelProto) -> list[str]:
    """The operators, in order."""
    return [n.op_type for n in proto.graph.node]


def constant(name: str, value: Array) -> onnx.NodeProto:
    """A Constant node that makes `name`."""
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.asarray(value)))


def flatten_chain() -> list[onnx.NodeProto]:
    """What exporters write for x.view(x.size(0), -1)."""
    return [
        helper.make_node("Shape", ["x"], ["s"]),
        constant("zero", np.array(0)),
        helper.make_node("Gather", ["s", "zero"], ["n"], axis=0),
        helper.make_node("Unsqueeze", ["n", "axes"], ["n1"]),
        constant("axes", np.array([0])),
        constant("rest", np.array([-1])),
        helper.make_node("Concat", ["n1", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"], "flat"),
    ]
