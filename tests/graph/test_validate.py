"""Malformed models: each kind is refused with the culprit's name, before any native code sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onnxnas import graph
from onnxnas.errors import ModelError
from onnxnas.graph import child
from onnxnas.testing.builder import Builder

Refuse = Callable[[Any], str]


@pytest.fixture(autouse=True)
def no_child(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Nothing here may get as far as the child process, unless it says so."""
    if request.function.__name__.startswith("test_loads"):
        return

    def asked(*_: object) -> None:
        raise AssertionError("the child process was asked about a malformed model")

    monkeypatch.setattr(child.Child, "_ask", asked)


def node(model: ModelProto, name: str) -> NodeProto:
    return next(n for n in model.graph.node if n.name == name)


def test_missing_initializer_names_consumer_and_value(small: ModelProto, refuse: Refuse) -> None:
    del small.graph.initializer[:]
    message = refuse(small)
    assert "Conv 'conv'" in message
    assert "'w'" in message


def test_dangling_input(small: ModelProto, refuse: Refuse) -> None:
    node(small, "relu").input[0] = "nowhere"
    message = refuse(small)
    assert "Relu 'relu'" in message
    assert "'nowhere'" in message


def test_dangling_output(small: ModelProto, refuse: Refuse) -> None:
    small.graph.output[0].name = "z"
    assert "output 'z'" in refuse(small)


def test_no_outputs(small: ModelProto, refuse: Refuse) -> None:
    del small.graph.output[:]
    assert "no outputs" in refuse(small)


@pytest.mark.parametrize("change", [-1, 1, -108, 1000])
def test_initializer_bytes_against_shape(small: ModelProto, refuse: Refuse, change: int) -> None:
    tensor = small.graph.initializer[0]
    data = tensor.raw_data
    tensor.raw_data = data[:change] if change < 0 else data + bytes(change)
    message = refuse(small)
    assert "'w'" in message
    assert "432" in message  # 4 * 3 * 3 * 3 floats
    assert f"{len(data) + change:,}" in message


def test_typed_data_too_short(small: ModelProto, refuse: Refuse) -> None:
    tensor = small.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.float_data.extend([0.0] * 107)
    message = refuse(small)
    assert "107" in message
    assert "108" in message


@pytest.mark.parametrize("dims", [[-4, 3, 3, 3], [2**62, 2**62], [2**40, 2**40, 3], [1] * 100])
def test_impossible_dimensions(small: ModelProto, refuse: Refuse, dims: list[int]) -> None:
    del small.graph.initializer[0].dims[:]
    small.graph.initializer[0].dims.extend(dims)
    assert "'w'" in refuse(small)


def test_unknown_element_type(small: ModelProto, refuse: Refuse) -> None:
    small.graph.initializer[0].data_type = 77
    assert "77" in refuse(small)


def test_bad_tensor_in_an_attribute(small: ModelProto, refuse: Refuse) -> None:
    value = TensorProto(name="c", data_type=TensorProto.FLOAT, dims=[1000], raw_data=b"1234")
    small.graph.node.insert(0, helper.make_node("Constant", [], ["c"], value=value))
    assert "4,000" in refuse(small)


@pytest.mark.parametrize("text", [b"relu", b"Relu"])
def test_names_must_be_text(small: ModelProto, refuse: Refuse, text: bytes) -> None:
    data = small.SerializeToString()
    assert "not UTF-8" in refuse(data.replace(text, b"\xff\xfe" + text[2:]))


def test_cycle_is_listed(small: ModelProto, refuse: Refuse) -> None:
    small.graph.node.insert(0, helper.make_node("Add", ["a", "b"], ["c"], name="sum"))
    node(small, "conv").input[0] = "c"
    message = refuse(small)
    assert "cycle" in message
    assert "sum" in message
    assert "conv" in message


def test_own_output(small: ModelProto, refuse: Refuse) -> None:
    node(small, "relu").input[0] = "b"
    assert "own output" in refuse(small)


def test_value_made_twice(small: ModelProto, refuse: Refuse) -> None:
    node(small, "relu").output[0] = "a"
    message = refuse(small)
    assert "made twice" in message
    assert "'conv'" in message
    assert "'relu'" in message


def test_initializer_twice(small: ModelProto, refuse: Refuse) -> None:
    small.graph.initializer.append(small.graph.initializer[0])
    assert "two initializers" in refuse(small)


def test_input_twice(small: ModelProto, refuse: Refuse) -> None:
    small.graph.input.append(small.graph.input[0])
    assert "two inputs" in refuse(small)


def test_node_makes_an_initializer(small: ModelProto, refuse: Refuse) -> None:
    node(small, "conv").output[0] = "w"
    assert "made twice" in refuse(small)


def test_attribute_twice(small: ModelProto, refuse: Refuse) -> None:
    node(small, "conv").attribute.extend([helper.make_attribute("group", 1)] * 2)
    assert "given twice" in refuse(small)


@pytest.mark.parametrize("opset", [0, 1, 6, 1000])
def test_opset_outside_the_range(small: ModelProto, refuse: Refuse, opset: int) -> None:
    small.opset_import[0].version = opset
    message = refuse(small)
    assert f"opset {opset}" in message
    assert "7 to" in message


def test_no_opset(small: ModelProto, refuse: Refuse) -> None:
    del small.opset_import[:]
    assert "opset" in refuse(small)


def test_future_ir_version(small: ModelProto, refuse: Refuse) -> None:
    small.ir_version = 1000
    assert "IR version 1000" in refuse(small)


def test_sequence_input(small: ModelProto, refuse: Refuse) -> None:
    kind = helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, None)
    small.graph.input[0].CopyFrom(kind)
    assert "sequence" in refuse(small)


def test_nested_too_deep(small: ModelProto, refuse: Refuse) -> None:
    outer: NodeProto = helper.make_node("Identity", ["flag"], ["i0"])
    for level in range(20):
        body = helper.make_graph([outer], "body", [], [])
        outer = NodeProto(op_type="Loop", output=[f"i{level + 1}"])
        outer.attribute.append(helper.make_attribute("body", body))
    small.graph.node.append(outer)
    assert "deep" in refuse(small)


def test_nested_a_thousand_deep(small: ModelProto, refuse: Refuse) -> None:
    def field(number: int, payload: bytes) -> bytes:
        size, head = len(payload), b""
        while size > 127:
            head, size = head + bytes([size % 128 | 128]), size // 128
        return bytes([number << 3 | 2]) + head + bytes([size]) + payload

    payload = b""
    for _ in range(1000):  # node.attribute.g, by hand: graph.node = 1, node.attribute = 5, attribute.g = 6
        payload = field(1, field(5, field(6, payload)))
    assert "ONNX model" in refuse(small.SerializeToString() + field(7, payload))


def test_too_many_nodes(small: ModelProto) -> None:
    with pytest.raises(ModelError, match="3 nodes; 2 at most"):
        graph.load(small, limits=graph.Limits(nodes=2))


def test_body_reads_a_value_that_is_nowhere(small: ModelProto, refuse: Refuse) -> None:
    out = helper.make_tensor_value_info("t", TensorProto.FLOAT, None)
    body = helper.make_graph([helper.make_node("Relu", ["ghost"], ["t"], name="inner")], "body", [], [out])
    flag = numpy_helper.from_array(np.array(True), "flag")
    small.graph.initializer.append(flag)
    small.graph.node.append(
        helper.make_node("If", ["flag"], ["z"], name="if", then_branch=body, else_branch=body)
    )
    message = refuse(small)
    assert "'ghost'" in message


def test_quantised_only(refuse: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the checker may see it
    weights = [
        numpy_helper.from_array(np.ones((4, 3, 3, 3), np.int8), "w"),
        numpy_helper.from_array(np.float32(0.1), "s"),
        numpy_helper.from_array(np.int8(0), "z"),
    ]
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wf"], name="dq"),
        helper.make_node("Conv", ["x", "wf"], ["y"], name="conv"),
    ]
    body = helper.make_graph(
        nodes,
        "quantised",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 6, 6])],
        weights,
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    message = refuse(model)
    assert "no float weights" in message
    assert "'dq'" in message


def test_float_weights_behind_quantisation_are_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quantisation-aware training keeps them."""
    monkeypatch.undo()
    b = Builder(0)
    settings = [b.weight("scale", np.float32(0.1)), b.weight("zero", np.int8(0))]
    w = b.add("QuantizeLinear", b.weight("w", b.normal(4, 3, 3, 3)), *settings, shape=())
    w = b.add("DequantizeLinear", w, *settings, shape=())
    y = b.add("Conv", b.input("x", (3, 8, 8)), w, shape=(4, 6, 6))
    assert len(graph.load(b.finish(y)).nodes) == 3


def test_loads_unsorted_nodes_with_a_note(small: ModelProto) -> None:
    nodes = list(small.graph.node)[::-1]
    copies = [NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del small.graph.node[:]
    small.graph.node.extend(copies)
    loaded = graph.load(small)
    assert [n.name for n in loaded.nodes] == ["conv", "relu", "pool"]
    assert any("sorted" in note for note in loaded.source["notes"])
    assert [n.name for n in small.graph.node] == ["pool", "relu", "conv"]  # the caller's is untouched


def test_loads_an_operator_of_another_domain(small: ModelProto) -> None:
    node(small, "relu").domain = "org.example"
    small.opset_import.append(helper.make_opsetid("org.example", 3))
    loaded = graph.load(small)
    assert loaded.node("relu").domain == "org.example"
    assert loaded.node("relu").version == 3
    assert loaded.tensors["b"].shape is None
    assert loaded.tensors["a"].shape == (1, 4, 6, 6)


def test_loads_captures_as_dependencies(small: ModelProto) -> None:
    """What a body captures orders the nodes: here the If is written before the node it reads."""
    out = helper.make_tensor_value_info("t", TensorProto.FLOAT, None)
    body = helper.make_graph([helper.make_node("Relu", ["b"], ["t"])], "body", [], [out])
    small.graph.initializer.append(numpy_helper.from_array(np.array(True), "flag"))
    branch = helper.make_node("If", ["flag"], ["z"], name="if", then_branch=body, else_branch=body)
    small.graph.node.insert(0, branch)
    small.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    loaded = graph.load(small)
    names = [n.name for n in loaded.nodes]
    assert names.index("relu") < names.index("if")
    assert loaded.node("if").attributes["then_branch"].captures == frozenset({"b"})
    assert {n.name for n in loaded.consumers("b")} == {"pool", "if"}
    assert loaded.networkx().has_edge("relu", "if")
