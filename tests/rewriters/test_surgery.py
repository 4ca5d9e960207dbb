"""Opening and closing a model loses nothing; the contract of rewriters is enforced."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from rewriters import Bypass, Keep, Refusal, Rewritten, SetAttribute, apply
from rewriters.base import perform
from rewriters.skeleton import captures, strip
from rewriters.surgery import Surgery
from tests.rewriters.build import floats, model, residual, run, values


def test_what_graphsurgeon_does_not_model_is_kept(rng: np.random.Generator) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "conv"),
        helper.make_node("Own", ["a", ""], ["b"], "own", domain="own.domain"),
        helper.make_node("Relu", ["b"], ["y"], "relu"),
    ]
    nodes[0].metadata_props.add(key="scope", value="layer1.conv")
    nodes[0].doc_string = "first"
    nodes[1].attribute.append(helper.make_attribute("none", [], attr_type=onnx.AttributeProto.INTS))
    nodes[1].attribute.append(helper.make_attribute("kind", helper.make_tensor_type_proto(1, [2])))
    full = model(
        nodes, {"x": ["N", 3, 4, 4]}, ["y"], {"w": floats(rng, 8, 3, 1, 1)}, domains={"own.domain": 3}
    )
    full.metadata_props.add(key="author", value="me")
    full.producer_name = "someone"
    out = apply(full, [])
    assert isinstance(out, Rewritten)
    assert list(out.model.graph.node) == nodes
    assert out.model.metadata_props == full.metadata_props
    assert out.model.opset_import == full.opset_import
    assert (out.model.producer_name, out.model.ir_version) == ("someone", full.ir_version)
    assert out.model.graph.input == full.graph.input
    edited = apply(full, [Keep("w", 0, np.array([1]))])
    assert isinstance(edited, Rewritten)
    assert list(edited.model.graph.node) == nodes


def test_an_edited_node_keeps_its_other_attributes(rng: np.random.Generator) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], "conv", pads=[1] * 4, strides=[2, 2])]
    full = model(nodes, {"x": [1, 3, 6, 6]}, ["y"], {"w": floats(rng, 8, 3, 3, 3)})
    out = apply(full, [SetAttribute("conv", "strides", (1, 1)), SetAttribute("conv", "dilations", (1, 1))])
    assert isinstance(out, Rewritten)
    found = {a.name: list(a.ints) for a in out.model.graph.node[0].attribute}
    assert found == {"pads": [1] * 4, "strides": [1, 1], "dilations": [1, 1]}


def test_dead_parts_and_stale_shapes_go(rng: np.random.Generator) -> None:
    full = residual(rng, 4, 4, 2)
    full.graph.initializer.append(onnx.numpy_helper.from_array(floats(rng, 3), "unused"))
    full.graph.node.append(helper.make_node("Relu", ["s0"], ["nobody"], "dead"))
    full.graph.value_info.append(helper.make_tensor_value_info("s0", 1, [1, 99, 6, 6]))
    out = apply(full, [Bypass("s0", "s1")])
    assert isinstance(out, Rewritten)
    assert not out.model.graph.value_info
    assert set(values(out.model)) == {"stem.w", "b1.w1", "b1.b1", "b1.w2"}
    assert [n.name for n in out.model.graph.node] == [
        *("stem", "b1.conv1", "b1.relu", "b1.conv2", "b1.add", "pool")
    ]


def test_names_that_are_missing_or_doubled(rng: np.random.Generator) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], "twin"),
        helper.make_node("Neg", ["a"], ["b"], "twin"),
        helper.make_node("Abs", ["b"], ["y"]),
    ]
    full = model(nodes, {"x": [2]}, ["y"], {})
    out = apply(full, [])
    assert isinstance(out, Rewritten)
    names = [n.name for n in out.model.graph.node]
    assert names[0] == "twin"
    assert len(set(names)) == 3
    assert "" not in names
    refused = apply(full, [SetAttribute("twin", "alpha", 1.0)])
    assert isinstance(refused, Refusal)
    assert "no single node" in refused.reason


def test_an_initializer_read_only_inside_a_body_can_be_edited(rng: np.random.Generator) -> None:
    bodies = [
        helper.make_graph(
            [helper.make_node(op, ["x", "w"], [f"o_{op}"])],
            op,
            [],
            [helper.make_tensor_value_info(f"o_{op}", 1, ["k"])],
        )
        for op in ("Add", "Mul")
    ]
    nodes = [helper.make_node("If", ["c"], ["y"], "if", then_branch=bodies[0], else_branch=bodies[1])]
    weights = {"w": np.array([1, 2, 3], np.float32)}
    full = model(nodes, {"x": [1], "c": []}, ["y"], weights, types={"c": TensorProto.BOOL})
    assert captures(full.graph.node[0]) == {"x", "w"}
    out = apply(full, [Keep("w", 0, np.array([2, 0]))])
    assert isinstance(out, Rewritten)
    feeds = {"x": np.array([10], np.float32), "c": np.array(True)}
    np.testing.assert_array_equal(run(out.model, feeds)[0], [13, 11])


def test_weights_stay_out_of_the_skeleton(rng: np.random.Generator) -> None:
    full = model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": [1, 500]}, ["y"], {"w": floats(rng, 500, 500)}
    )
    assert full.ByteSize() > 1_000_000
    assert strip(full).ByteSize() < 1_000
    assert list(strip(full).graph.initializer[0].dims) == [500, 500]


def test_external_weights_are_carried_but_not_edited(rng: np.random.Generator) -> None:
    full = residual(rng, 4, 4, 1)
    tensor = next(t for t in full.graph.initializer if t.name == "b0.w1")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    out = apply(full, [])
    assert isinstance(out, Rewritten)
    assert tensor in out.model.graph.initializer
    refused = apply(full, [Keep("b0.w1", 0, np.array([0]))])
    assert isinstance(refused, Refusal)
    assert "values at hand" in refused.reason


def test_a_rewriter_that_breaks_its_contract_is_found_out(rng: np.random.Generator) -> None:
    def silent(surgery: Surgery, edits: Sequence[Bypass]) -> list[str] | Refusal:
        return []

    def greedy(surgery: Surgery, edits: Sequence[Bypass]) -> list[str] | Refusal:
        surgery.graph.outputs = []
        return ["took the outputs"]

    edits = [Bypass("s0", "s1")]
    for rewriter, message in ((silent, "0 of 1"), (greedy, "changed the graph's")):
        with pytest.raises(AssertionError, match=message):
            perform(rewriter, Surgery(residual(rng, 3, 3, 1)), edits)
