"""Bypass against the same network built without the block."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from rewriters import Bypass, Refusal, Rewritten, apply
from tests.rewriters.build import close, floats, model, residual, run


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), blocks=st.integers(1, 4), data=st.data())
def test_equals_the_network_built_without(seed: int, blocks: int, data: st.DataObject) -> None:
    skip = data.draw(st.frozensets(st.integers(0, blocks - 1)))
    full = residual(np.random.default_rng(seed), 4, 5, blocks)
    expected = residual(np.random.default_rng(seed), 4, 5, blocks, skip)
    x = {"x": floats(np.random.default_rng(1), 2, 3, 6, 6)}
    result = apply(full, [Bypass(f"s{i}", f"s{i + 1}") for i in sorted(skip)])
    assert isinstance(result, Rewritten)
    close(run(result.model, x), run(expected, x), 1e-6)
    assert {t.name for t in result.model.graph.initializer} == {t.name for t in expected.graph.initializer}
    assert len(result.model.graph.node) == len(expected.graph.node)


def test_input_model_is_not_modified(rng: np.random.Generator) -> None:
    full = residual(rng, 4, 4, 2)
    before = full.SerializeToString(deterministic=True)
    assert isinstance(apply(full, [Bypass("s0", "s1")]), Rewritten)
    assert full.SerializeToString(deterministic=True) == before


def tail(rng: np.random.Generator, *outputs: str) -> onnx.ModelProto:
    """x -> Relu -> a -> Conv -> b."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], "relu"),
        helper.make_node("Conv", ["a", "w"], ["b"], "conv"),
    ]
    return model(nodes, {"x": [1, 3, 4, 4]}, outputs, {"w": floats(rng, 3, 3, 1, 1)})


def test_output_keeps_its_name(rng: np.random.Generator) -> None:
    x = {"x": floats(rng, 1, 3, 4, 4)}
    result = apply(tail(rng, "b"), [Bypass("a", "b")])
    assert isinstance(result, Rewritten)
    assert [o.name for o in result.model.graph.output] == ["b"]
    assert [n.op_type for n in result.model.graph.node] == ["Relu"]
    np.testing.assert_array_equal(run(result.model, x)[0], np.maximum(x["x"], 0))


@pytest.mark.parametrize(("entry", "outputs"), [("x", ("b",)), ("a", ("a", "b")), ("a", ("b", "a"))])
def test_output_fed_by_an_input_or_another_output(
    rng: np.random.Generator, entry: str, outputs: tuple[str, ...]
) -> None:
    x = {"x": floats(rng, 1, 3, 4, 4)}
    result = apply(tail(rng, *outputs), [Bypass(entry, "b")])
    assert isinstance(result, Rewritten)
    found = dict(zip(outputs, run(result.model, x), strict=True))
    np.testing.assert_array_equal(found["b"], x["x"] if entry == "x" else np.maximum(x["x"], 0))
    assert [o.name for o in result.model.graph.output] == list(outputs)


def test_readers_inside_a_body_follow(rng: np.random.Generator) -> None:
    out = helper.make_tensor_value_info("o", 1, None)
    bodies = [
        helper.make_graph([helper.make_node(op, ["b"], [f"o_{op}"])], op, [], [
            helper.make_tensor_value_info(f"o_{op}", 1, None)]) for op in ("Neg", "Abs")
    ]  # fmt: skip
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], "relu"),
        helper.make_node("Mul", ["a", "a"], ["b"], "square"),
        helper.make_node("If", ["c"], [out.name], "if", then_branch=bodies[0], else_branch=bodies[1]),
    ]
    proto = model(nodes, {"x": [3], "c": []}, ["o"], {}, types={"c": onnx.TensorProto.BOOL})
    result = apply(proto, [Bypass("a", "b")])
    assert isinstance(result, Rewritten)
    assert [n.name for n in result.model.graph.node] == ["relu", "if"]
    x = np.array([-1, 2, 3], np.float32)
    np.testing.assert_array_equal(run(result.model, {"x": x, "c": np.array(True)})[0], [0, -2, -3])


@pytest.mark.parametrize(
    ("edits", "reason", "culprit"),
    [
        ([Bypass("nowhere", "s1")], "no tensor 'nowhere'", "nowhere"),
        ([Bypass("s0", "x")], "no node makes it", "x"),
        ([Bypass("s0", "s2"), Bypass("s1", "s2")], "bypassed twice", "b1.add"),
        ([Bypass("s1", "s2"), Bypass("s2", "s1")], "circle", "s"),
        ([Bypass("s2", "s1")], "circle", "b1"),
    ],
)
def test_refusals_name_the_culprit(
    rng: np.random.Generator, edits: list[Bypass], reason: str, culprit: str
) -> None:
    result = apply(residual(rng, 4, 4, 2), edits)
    assert isinstance(result, Refusal)
    assert reason in result.reason
    assert culprit in result.node


def test_a_bypass_between_different_widths_is_refused(rng: np.random.Generator) -> None:
    """The hidden tensor has 5 channels, the residual stream 4: the addition behind cannot work."""
    result = apply(residual(rng, 4, 5, 2), [Bypass("r0", "c0")])
    assert isinstance(result, Refusal)
    assert "do not fit together" in result.reason
    assert result.node == "b0.add"


@pytest.mark.parametrize(("read", "skip"), [("a", ("a", "b")), ("b", ("a", "b")), ("a", ("x", "a"))])
def test_bodies_read_what_takes_the_place(rng: np.random.Generator, read: str, skip: tuple[str, str]) -> None:
    """x -> Relu -> a -> Neg -> b, an output; an If whose bodies read a or b."""
    bodies = [
        helper.make_graph(
            [helper.make_node(op, [read, "w"], [f"o_{op}"])],
            op,
            [],
            [helper.make_tensor_value_info(f"o_{op}", 1, ["k"])],
        )
        for op in ("Add", "Mul")
    ]
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], "relu"),
        helper.make_node("Neg", ["a"], ["b"], "neg"),
        helper.make_node("If", ["c"], ["y"], "if", then_branch=bodies[0], else_branch=bodies[1]),
    ]
    full = model(
        nodes,
        {"x": [3], "c": []},
        ["b", "y"],
        {"w": floats(rng, 3)},
        types={"c": onnx.TensorProto.BOOL},
    )
    result = apply(full, [Bypass(*skip)])
    assert isinstance(result, Rewritten)
    x, w = floats(rng, 3), onnx.numpy_helper.to_array(full.graph.initializer[0])
    for chosen in (True, False):
        relu = x if skip[0] == "x" else np.maximum(x, 0)
        b = -relu if skip[1] == "a" else relu
        inside = relu if read == "a" else b
        y = inside + w if chosen else inside * w
        close(run(result.model, {"x": x, "c": np.array(chosen)}), [b, y], 1e-6)
