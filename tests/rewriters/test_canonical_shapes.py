"""The canonical form where shapes are arithmetic: unknown batches, and shapes that are given."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from rewriters import canonicalise
from tests.rewriters.build import close, flatten_chain, floats, model, ops, run, values


def shape_of(proto: onnx.ModelProto, name: str) -> list[int | str]:
    info = next(v for v in proto.graph.value_info if v.name == name)
    return [d.dim_param or d.dim_value for d in info.type.tensor_type.shape.dim]


def test_an_unknown_batch_becomes_zero(rng: np.random.Generator) -> None:
    nodes = flatten_chain()
    nodes[3], nodes[4] = nodes[4], nodes[3]
    full = model(nodes, {"x": ["N", 3, 4, 5]}, ["y"], {})
    out = canonicalise(full).model
    assert ops(out) == ["Reshape"]
    np.testing.assert_array_equal(values(out)[out.graph.node[0].input[1]], [0, 60])
    x = {"x": floats(rng, 7, 3, 4, 5)}
    close(run(out, x), run(full, x), 0)


def test_windows_of_an_unknown_batch(rng: np.random.Generator) -> None:
    """x.view(N * 4, 6) and back by N * 4 / 4, as window attention does; symbols must cancel."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "i0"], ["n"]),
        helper.make_node("Mul", ["n", "four"], ["n4"]),
        helper.make_node("Concat", ["n4", "six"], ["t1"], axis=0),
        helper.make_node("Reshape", ["x", "t1"], ["w"], "windows"),
        helper.make_node("Relu", ["w"], ["r"]),
        helper.make_node("Shape", ["r"], ["s2"]),
        helper.make_node("Gather", ["s2", "i0"], ["m"]),
        helper.make_node("Div", ["m", "four"], ["n2"]),
        helper.make_node("Concat", ["n2", "four", "six"], ["t2"], axis=0),
        helper.make_node("Reshape", ["r", "t2"], ["b"], "back"),
        helper.make_node("Add", ["b", "x"], ["y"]),
    ]
    weights = {"i0": np.array([0]), "four": np.array([4]), "six": np.array([6])}
    full = model(nodes, {"x": ["N", 4, 6]}, ["y"], weights)
    out = canonicalise(full).model
    assert ops(out) == ["Reshape", "Relu", "Reshape", "Add"]
    assert shape_of(out, "w") == ["4*N", 6]
    assert shape_of(out, "b") == ["N", 4, 6]
    x = {"x": floats(rng, 3, 4, 6)}
    close(run(out, x), run(full, x), 0)


def test_two_unknowns_without_a_place_stay_computed(rng: np.random.Generator) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "order"], ["t"]),
        helper.make_node("Reshape", ["x", "t"], ["y"]),
    ]
    full = model(nodes, {"x": ["N", "H", 2]}, ["y"], {"order": np.array([1, 0, 2])})
    out = canonicalise(full).model
    assert ops(out) == ["Shape", "Gather", "Where", "Reshape"]  # the data decide on the last number
    x = {"x": floats(rng, 3, 5, 2)}
    close(run(out, x), run(full, x), 0)


def test_resize_slice_and_expand_with_an_unknown_batch(rng: np.random.Generator) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Slice", ["s", "i0", "i2"], ["nc"]),
        helper.make_node("Concat", ["nc", "big"], ["sizes"], axis=0),
        helper.make_node("Resize", ["x", "", "", "sizes"], ["up"], "up", mode="linear"),
        helper.make_node("Slice", ["s", "i0", "i1"], ["n"]),
        helper.make_node("Slice", ["up", "i0", "n", "i0"], ["same"], "all_of_the_batch"),
        helper.make_node("Shape", ["same"], ["s3"]),
        helper.make_node("Expand", ["same", "s3"], ["e"]),
        helper.make_node("Relu", ["e"], ["y"]),
    ]
    weights = {"i0": np.array([0]), "i1": np.array([1]), "i2": np.array([2]), "big": np.array([8, 12])}
    full = model(nodes, {"x": ["N", 3, 4, 6]}, ["y"], weights)
    out = canonicalise(full).model
    assert ops(out) == ["Resize", "Relu"]
    np.testing.assert_array_equal(values(out)[out.graph.node[0].input[2]], [1, 1, 2, 2])
    x = {"x": floats(rng, 2, 3, 4, 6)}
    close(run(out, x), run(full, x), 0)


def test_a_class_token_expanded_to_the_batch_stays_right(rng: np.random.Generator) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["n"], start=0, end=1),
        helper.make_node("Concat", ["n", "rest"], ["t"], axis=0),
        helper.make_node("Equal", ["t", "minus"], ["eq"]),
        helper.make_node("Where", ["eq", "ones", "t"], ["target"]),
        helper.make_node("Expand", ["token", "target"], ["tokens"]),
        helper.make_node("Concat", ["tokens", "x"], ["y"], axis=1),
    ]
    weights = {
        "rest": np.array([-1, -1]),
        "minus": np.array(-1),
        "ones": np.ones(3, np.int64),
        "token": floats(rng, 1, 1, 4),
    }
    full = model(nodes, {"x": ["N", 5, 4]}, ["y"], weights)
    out = canonicalise(full).model
    x = {"x": floats(rng, 3, 5, 4)}
    close(run(out, x), run(full, x), 0)
    assert shape_of(out, "tokens") == ["N", 1, 4]


def test_everything_is_known_with_shapes_given(rng: np.random.Generator) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "order"], ["t"]),
        helper.make_node("Reshape", ["x", "t"], ["y"]),
    ]
    full = model(nodes, {"x": ["N", "H", 2]}, ["y"], {"order": np.array([1, 0, 2])})
    out = canonicalise(full, {"x": (3, 5, 2)}).model
    assert ops(out) == ["Reshape"]
    assert [d.dim_value for d in out.graph.input[0].type.tensor_type.shape.dim] == [3, 5, 2]
    assert [d.dim_value for d in out.graph.output[0].type.tensor_type.shape.dim] == [5, 3, 2]
    x = {"x": floats(rng, 3, 5, 2)}
    close(run(out, x), run(full, x), 0)
    with pytest.raises(ValueError, match="the model's inputs are x"):
        canonicalise(full, {"nowhere": (1,)})
    with pytest.raises(ValueError, match="expected 3 dimensions"):
        canonicalise(full, {"x": (1,)})
