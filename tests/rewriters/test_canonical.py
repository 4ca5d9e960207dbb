"""The canonical form: what it must look like for small models, and that it computes the same."""

from __future__ import annotations

import time

import numpy as np
import pytest
from onnx import TensorProto, helper

from rewriters import canonicalise
from tests.rewriters.build import close, constant, flatten_chain, floats, model, ops, run, values


def test_unsorted_nodes_are_sorted(rng: np.random.Generator) -> None:
    out = canonicalise(model(list(reversed(flatten_chain())), {"x": ["N", 3, 4, 5]}, ["y"], {})).model
    assert ops(out) == ["Reshape"]
    assert run(out, {"x": floats(rng, 2, 3, 4, 5)})[0].shape == (2, 60)


def test_a_circle_is_an_error() -> None:
    nodes = [helper.make_node("Add", ["x", "b"], ["a"], "one"), helper.make_node("Relu", ["a"], ["b"], "two")]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", 1, [1])], [
        helper.make_tensor_value_info("b", 1, [1])])  # fmt: skip
    with pytest.raises(ValueError, match="circle through Add 'one'"):
        canonicalise(helper.make_model(graph))


def test_nodes_that_change_nothing_go(rng: np.random.Generator) -> None:
    nodes = [
        helper.make_node("Identity", ["x"], ["a"]),
        helper.make_node("Dropout", ["a"], ["b"]),
        helper.make_node("Cast", ["b"], ["c"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["c"], ["d"], perm=[0, 1, 2]),
        helper.make_node("Concat", ["d"], ["e"], axis=0),
        helper.make_node("Reshape", ["e", "t"], ["f"]),
        helper.make_node("Pad", ["f", "p"], ["g"]),
        helper.make_node("Relu", ["g"], ["h"]),
        helper.make_node("Identity", ["h"], ["y"]),
    ]
    weights = {"t": np.array([2, 3, 4]), "p": np.zeros(6, np.int64)}
    full = model(nodes, {"x": [2, 3, 4]}, ["y"], weights)
    out = canonicalise(full).model
    assert ops(out) == ["Relu"]
    assert list(out.graph.node[0].output) == ["y"]
    assert not out.graph.initializer
    x = {"x": floats(rng, 2, 3, 4)}
    close(run(out, x), run(full, x), 0)


def test_nodes_that_look_idle_but_are_not_stay(rng: np.random.Generator) -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["a"], perm=[1, 0]),
        helper.make_node("Slice", ["a", "start", "end", "axis", "step"], ["b"]),
        helper.make_node("Identity", ["b"], ["y"]),
        helper.make_node("Identity", ["b"], ["z"]),
        helper.make_node("Identity", ["x"], ["same"]),
    ]
    weights = {"start": np.array([-1]), "end": np.array([-9]), "axis": np.array([0]), "step": np.array([-1])}
    full = model(nodes, {"x": [3, 3]}, ["y", "z", "same"], weights)
    out = canonicalise(full).model
    x = {"x": floats(rng, 3, 3)}
    close(run(out, x), [x["x"].T[::-1], x["x"].T[::-1], x["x"]], 0)
    assert sorted(ops(out)) == ["Identity", "Identity", "Slice", "Transpose"]


def test_training_dropout_stays(rng: np.random.Generator) -> None:
    nodes = [helper.make_node("Dropout", ["x", "ratio", "on"], ["y"])]
    weights = {"ratio": np.float32(0.5), "on": np.array(True)}
    assert ops(canonicalise(model(nodes, {"x": [8]}, ["y"], weights)).model) == ["Dropout"]


def test_constant_weights_are_folded_but_tied_ones_stay(rng: np.random.Generator) -> None:
    w, tied = floats(rng, 40, 30), floats(rng, 40, 30)
    nodes = [
        helper.make_node("Transpose", ["w"], ["wt"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "wt"], ["a"]),
        helper.make_node("Gather", ["tied", "ids"], ["e"]),
        helper.make_node("Identity", ["tied"], ["alias"]),
        helper.make_node("Transpose", ["alias"], ["tt"], perm=[1, 0]),
        helper.make_node("MatMul", ["e", "tt"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    kinds = {"ids": TensorProto.INT64}
    full = model(nodes, {"x": [2, 30], "ids": [2]}, ["y"], {"w": w, "tied": tied}, types=kinds)
    out = canonicalise(full).model
    assert sorted(ops(out)) == ["Add", "Gather", "MatMul", "MatMul", "Transpose"]
    np.testing.assert_array_equal(values(out)["wt"], w.T)
    assert sum(list(n.input).count("tied") for n in out.graph.node) == 2
    feeds = {"x": floats(rng, 2, 30), "ids": np.array([3, 39])}
    close(run(out, feeds), run(full, feeds), 0)


def test_large_expansions_are_not_made_constant() -> None:
    nodes = [
        helper.make_node("ConstantOfShape", ["big"], ["c"]),
        helper.make_node("Add", ["x", "c"], ["y"]),
    ]
    full = model(nodes, {"x": [1]}, ["y"], {"big": np.array([1000, 1000])})
    out = canonicalise(full).model
    assert ops(out) == ["ConstantOfShape", "Add"]
    assert out.ByteSize() < 10_000


def test_random_and_quantisation_nodes_are_not_folded(rng: np.random.Generator) -> None:
    nodes = [
        helper.make_node("RandomUniform", [], ["r"], shape=[3]),
        helper.make_node("DequantizeLinear", ["q", "scale"], ["w"]),
        helper.make_node("Add", ["r", "w"], ["a"]),
        helper.make_node("Add", ["a", "x"], ["y"]),
    ]
    weights = {"q": np.array([1, 2, 3], np.int8), "scale": np.float32(0.5)}
    out = canonicalise(model(nodes, {"x": [3]}, ["y"], weights)).model
    assert ops(out)[:3] == ["RandomUniform", "DequantizeLinear", "Add"]


def test_merged_initializers_are_parted(rng: np.random.Generator) -> None:
    nodes = [
        helper.make_node("Identity", ["ones"], ["ones2"]),
        helper.make_node("BatchNormalization", ["x", "ones", "zeros", "zeros", "ones2"], ["a"], "bn1"),
        helper.make_node("BatchNormalization", ["a", "ones2", "zeros", "mean", "var"], ["b"], "bn2"),
        helper.make_node("BatchNormalization", ["b", "ones", "zeros", "mean", "var"], ["c"], "bn3"),
        helper.make_node("Reshape", ["c", "t"], ["d"], "r1"),
        helper.make_node("Reshape", ["d", "t"], ["y"], "r2"),
    ]
    weights = {
        "ones": np.ones(3, np.float32),
        "zeros": np.zeros(3, np.float32),
        "mean": floats(rng, 3),
        "var": np.array([1, 2, 3], np.float32),
        "t": np.array([0, 3, -1]),
    }
    full = model(nodes, {"x": [2, 3, 4]}, ["y"], weights)
    canonical = canonicalise(full)
    used = [i for n in canonical.model.graph.node for i in n.input]
    # 4 of ones, 4 of zeros, one mean, one var (tied floats stay tied), one target: its second Reshape is idle
    names = {name for name in used if name in values(canonical.model)}
    assert len(names) == 11
    assert used.count("mean") == used.count("var") == 2
    assert "6 copies made of initializers that were merged" in canonical.notes
    x = {"x": floats(rng, 2, 3, 4)}
    close(run(canonical.model, x), run(full, x), 0)


def test_names_are_unique_and_kept() -> None:
    names = ["conv", "", "conv", "Relu_1", ""]
    nodes = [helper.make_node("Relu", [f"t{i}"], [f"t{i + 1}"], n) for i, n in enumerate(names)]
    nodes[0].metadata_props.add(key="scope", value="layer1")
    out = canonicalise(model(nodes, {"t0": [1]}, ["t5"], {})).model
    found = [n.name for n in out.graph.node]
    assert len(set(found)) == 5
    assert "" not in found
    assert (found[0], found[3]) == ("conv", "Relu_1")
    assert out.graph.node[0].metadata_props[0].value == "layer1"


def test_initializers_listed_as_inputs_are_inputs_no_more(rng: np.random.Generator) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    weights = {"w": floats(rng, 2, 3, 1, 1)}
    full = model(nodes, {"x": [1, 3, 4, 4], "w": [2, 3, 1, 1]}, ["y"], weights, opset=8, ir=3)
    out = canonicalise(full).model
    assert [i.name for i in out.graph.input] == ["x"]
    x = {"x": floats(rng, 1, 3, 4, 4)}
    close(run(out, x), run(full, x), 0)


def test_bodies_are_left_alone_and_find_what_they_read(rng: np.random.Generator) -> None:
    bodies = [
        helper.make_graph(
            [
                helper.make_node("Identity", ["alias"], [f"i{k}"]),
                helper.make_node("Add", [f"i{k}", "folded"], [f"o{k}"]),
            ],
            f"branch{k}",
            [],
            [helper.make_tensor_value_info(f"o{k}", 1, [2])],
        )
        for k in (0, 1)
    ]
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Identity", ["r"], ["alias"]),
        helper.make_node("Add", ["one", "one"], ["folded"]),
        helper.make_node("If", ["c"], ["y"], then_branch=bodies[0], else_branch=bodies[1]),
        helper.make_node("Add", ["alias", "folded"], ["z"]),
    ]
    weights = {"one": np.ones(2, np.float32)}
    full = model(nodes, {"x": [2], "c": []}, ["y", "z"], weights, types={"c": TensorProto.BOOL})
    out = canonicalise(full).model
    branches = {a.g.name: a.g for n in out.graph.node if n.op_type == "If" for a in n.attribute}
    assert [branches[b.name] for b in bodies] == bodies
    assert "folded" in values(out)
    feeds = {"x": floats(rng, 2), "c": np.array(False)}
    close(run(out, feeds), run(full, feeds), 0)


def test_functions_are_inlined(rng: np.random.Generator) -> None:
    opset = [helper.make_opsetid("", 17)]
    double = helper.make_function(
        "own", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], opset
    )
    nodes = [helper.make_node("Twice", ["x"], ["y"], domain="own")]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, [2])],
        [helper.make_tensor_value_info("y", 1, [2])],
    )
    full = helper.make_model(
        graph, functions=[double], opset_imports=[*opset, helper.make_opsetid("own", 1)], ir_version=8
    )
    out = canonicalise(full).model
    assert ops(out) == ["Add"]
    x = floats(rng, 2)
    np.testing.assert_array_equal(run(out, {"x": x})[0], 2 * x)


def test_a_constant_output_is_still_made_by_a_node() -> None:
    nodes = [constant("a", np.array([1.0, 2.0], np.float32)), helper.make_node("Add", ["a", "a"], ["y"])]
    out = canonicalise(model(nodes, {"x": [1]}, ["y"], {})).model
    assert ops(out) == ["Add"]
    np.testing.assert_array_equal(run(out, {"x": np.zeros(1, np.float32)})[0], [2, 4])


def test_the_model_given_is_not_modified(rng: np.random.Generator) -> None:
    full = model(flatten_chain(), {"x": ["N", 3, 4, 5]}, ["y"], {"w": floats(rng, 3)})
    before = full.SerializeToString(deterministic=True)
    canonicalise(full, {"x": (2, 3, 4, 5)})
    assert full.SerializeToString(deterministic=True) == before


def test_twice_is_once(rng: np.random.Generator) -> None:
    nodes = flatten_chain()
    nodes[3], nodes[4] = nodes[4], nodes[3]
    once = canonicalise(model(nodes, {"x": ["N", 3, 4, 5]}, ["y"], {})).model
    twice = canonicalise(once).model
    assert twice.SerializeToString(deterministic=True) == once.SerializeToString(deterministic=True)


def test_time_is_linear() -> None:
    def seconds(count: int) -> float:
        nodes = []
        for i in range(count // 4):
            nodes += [
                helper.make_node("Shape", [f"t{i}"], [f"s{i}"]),
                helper.make_node("Gather", [f"s{i}", "zero"], [f"n{i}"]),
                helper.make_node("Concat", [f"n{i}", "three"], [f"g{i}"], axis=0),
                helper.make_node("Expand", [f"t{i}", f"g{i}"], [f"e{i}"]),
                helper.make_node("Relu", [f"e{i}"], [f"t{i + 1}"]),
            ]
        full = model(
            nodes,
            {"t0": ["N", 3]},
            [f"t{count // 4}"],
            {"zero": np.array([0]), "three": np.array([3])},
        )
        start = time.process_time()
        assert len(canonicalise(full).model.graph.node) == count // 4
        return time.process_time() - start

    seconds(40)
    small, large = seconds(500), seconds(4000)
    assert large < 8 * 3 * max(small, 0.02)
