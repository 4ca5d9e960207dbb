"""Keep, SetAttribute, ReplaceConstant and SetInitializer against models built from sliced arrays."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from rewriters import Keep, Refusal, ReplaceConstant, Rewritten, SetAttribute, SetInitializer, apply
from rewriters.edits import Edit
from tests.rewriters.build import close, floats, model, residual, run, values


def hidden(indices: list[int], block: int = 0) -> list[Edit]:
    p = np.array(indices, dtype=np.int64)
    return [Keep(f"b{block}.w1", 0, p), Keep(f"b{block}.b1", 0, p), Keep(f"b{block}.w2", 1, p)]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), size=st.integers(1, 6), data=st.data())
def test_a_narrower_width_equals_sliced_arrays(seed: int, size: int, data: st.DataObject) -> None:
    kept = data.draw(st.lists(st.integers(0, size - 1), min_size=1, unique=True))
    full = residual(np.random.default_rng(seed), 3, size, 1)
    result = apply(full, hidden(kept))
    assert isinstance(result, Rewritten)
    expected = residual(np.random.default_rng(seed), 3, size, 1)
    for tensor in expected.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if tensor.name in ("b0.w1", "b0.b1"):
            array = array[kept]
        if tensor.name == "b0.w2":
            array = array[:, kept]
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))
    x = {"x": floats(np.random.default_rng(2), 2, 3, 6, 6)}
    close(run(result.model, x), run(expected, x), 1e-6)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), order=st.permutations(range(5)))
def test_a_permutation_leaves_the_function(seed: int, order: list[int]) -> None:
    full = residual(np.random.default_rng(seed), 3, 5, 2)
    result = apply(full, hidden(list(order), 1))
    assert isinstance(result, Rewritten)
    x = {"x": floats(np.random.default_rng(3), 1, 3, 6, 6)}
    close(run(result.model, x), run(full, x))


def grouped(rng: np.random.Generator) -> onnx.ModelProto:
    """Depthwise convolution, then a split of its channels by a constant shared with a Reshape."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "dw", group=4, pads=[1] * 4),
        helper.make_node("Split", ["a", "sizes"], ["p", "q"], "split", axis=1),
        helper.make_node("Mul", ["p", "q"], ["m"], "mul"),
        helper.make_node("Reshape", ["m", "target"], ["y"], "flat"),
        helper.make_node("Reshape", ["q", "target"], ["z"], "flat2"),
    ]
    weights = {
        "w": floats(rng, 4, 1, 3, 3),
        "sizes": np.array([2, 2]),
        "target": np.array([0, 50]),
    }
    return model(nodes, {"x": [1, 4, 5, 5]}, ["y", "z"], weights)


def test_attributes_and_constants_follow(rng: np.random.Generator) -> None:
    full, x = grouped(rng), floats(rng, 1, 2, 5, 5)
    full.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 2
    result = apply(
        full,
        [
            Keep("w", 0, np.array([1, 3])),
            SetAttribute("dw", "group", 2),
            ReplaceConstant("split", 1, np.array([1, 1])),
            ReplaceConstant("flat", 1, np.array([0, 25])),
            ReplaceConstant("flat2", 1, np.array([0, -1])),
        ],
    )
    assert isinstance(result, Rewritten)
    w = values(full)["w"][[1, 3]]
    padded = np.pad(x[0], ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    a = np.einsum("chwij,cij->chw", windows, w[:, 0])
    close(run(result.model, {"x": x}), [(a[0] * a[1]).reshape(1, 25), a[1].reshape(1, 25)])


def test_a_replaced_constant_leaves_other_readers_theirs(rng: np.random.Generator) -> None:
    full = grouped(rng)
    result = apply(full, [ReplaceConstant("flat", 1, np.array([2, 25]))])
    assert isinstance(result, Rewritten)
    x = {"x": floats(rng, 1, 4, 5, 5)}
    before, after = run(full, x), run(result.model, x)
    close(after, [before[0].reshape(2, 25), before[1]], 0)


def test_values_are_set_last(rng: np.random.Generator) -> None:
    full, new = residual(rng, 3, 5, 1), floats(rng, 3, 2, 3, 3)
    result = apply(full, [SetInitializer("b0.w2", new), *hidden([4, 0])])
    assert isinstance(result, Rewritten)
    np.testing.assert_array_equal(values(result.model)["b0.w2"], new)


def test_result_owns_its_arrays(rng: np.random.Generator) -> None:
    full, new = residual(rng, 3, 5, 1), floats(rng, 3, 5, 3, 3)
    result = apply(full, [SetInitializer("b0.w2", new)])
    assert isinstance(result, Rewritten)
    kept = new.copy()
    new += 1
    np.testing.assert_array_equal(values(result.model)["b0.w2"], kept)


def test_an_output_declares_its_new_width(rng: np.random.Generator) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], "conv")]
    full = model(nodes, {"x": ["N", 3, 4, 4]}, ["y"], {"w": floats(rng, 8, 3, 1, 1)})
    full.graph.output[0].type.CopyFrom(helper.make_tensor_type_proto(1, ["N", 8, 4, 4]))
    result = apply(full, [Keep("w", 0, np.array([1, 2]))])
    assert isinstance(result, Rewritten)
    dims = result.model.graph.output[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == ["N", 2, 4, 4]


@pytest.mark.parametrize(
    ("edits", "reason"),
    [
        ([Keep("nowhere", 0, np.array([0]))], "not an initializer"),
        ([Keep("h0", 0, np.array([0]))], "not an initializer"),
        ([Keep("b0.w1", 4, np.array([0]))], "no axis 4"),
        ([Keep("b0.w1", 0, np.array([5]))], "0..4"),
        ([Keep("b0.w1", 0, np.array([-1]))], "0..4"),
        ([Keep("b0.w1", 0, np.array([1, 1]))], "must differ"),
        ([Keep("b0.w1", 0, np.array([], dtype=np.int64))], "non-empty"),
        ([Keep("b0.w1", 0, np.array([0])), Keep("b0.w1", 0, np.array([1]))], "two ways"),
        ([SetAttribute("nowhere", "group", 2)], "no single node"),
        ([SetAttribute("b0.conv1", "groups", 2)], "no attribute 'groups'"),
        ([SetAttribute("b0.conv1", "group", "two")], "set attribute"),
        ([ReplaceConstant("b0.conv1", 5, np.array([0]))], "3 inputs"),
        ([SetInitializer("h0", np.zeros(1, np.float32))], "no initializer 'h0'"),
        ([SetInitializer("b0.b1", np.zeros(4, np.float32))], "has shape (5,)"),
        ([SetInitializer("b0.b1", np.zeros(5, np.complex64))], "is float32"),
    ],
)
def test_refusals(rng: np.random.Generator, edits: list[Edit], reason: str) -> None:
    result = apply(residual(rng, 3, 5, 1), edits)
    assert isinstance(result, Refusal)
    assert reason in result.reason
    assert result.node


def test_a_thing_that_is_no_edit_is_an_error(rng: np.random.Generator) -> None:
    with pytest.raises(TypeError, match="not an edit"):
        apply(residual(rng, 3, 5, 1), ["Keep"])  # type: ignore[list-item]
