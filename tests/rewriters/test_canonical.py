"""The canonical form: what it must look like for small models, and that it computes the same."""

from __future__ import annotations

import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from rewriters import canonicalise
from tests.rewriters.build import Array, close, floats, model, run, values


def ops(proto: onnx.ModelProto) -> list[str]:
    return [n.op_type for n in proto.graph.node]


def constant(name: str, value: Array) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.asarray(value)))


def shape_of(proto: onnx.ModelProto, name: str) -> list[int | str]:
    info = next(v for v in proto.graph.value_info if v.name == name)
    return [d.dim_param or d.dim_value for d in info.type.tensor_type.shape.dim]


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


def test_an_unknown_batch_becomes_zero(rng: np.random.Generator) -> None:
    nodes = flatten_chain()
    nodes[3], nodes[4] = nodes[4], nodes[3]
    full = model(nodes, {"x": ["N", 3, 4, 5]}, ["y"], {})
    out = canonicalise(full).model
    assert ops(out) == ["Reshape"]
    np.testing.assert_array_equal(values(out)[out.graph.node[0].input[1]], [0, 60])
    x = {"x": floats(rng, 7, 3, 4, 5)}
    close(run(out, x), run(full, x), 0)


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
