"""Symbols, light operators and targets against plain arithmetic with numbers put in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from rewriters import targets
from rewriters.evaluate import evaluate
from rewriters.symbols import Dim, Unknown, array, divide, product, rounded, same

N, H = Dim(("N",)), Dim(("H",))
NUMBERS = {"N": 6, "H": 35}
elements = st.one_of(
    st.integers(-4, 12),
    st.builds(lambda d, k: d * k, st.sampled_from([N, H, N * H]), st.integers(1, 6)),
)


def number(value: Any) -> Any:
    """`value` with numbers for its symbols; None for an opaque one."""
    if not isinstance(value, Dim):
        return value
    if not set(value.factors) <= NUMBERS.keys():
        return None
    return value.coefficient * int(np.prod([NUMBERS[f] for f in value.factors]))


@given(elements, elements)
def test_sums_products_and_quotients(a: Any, b: Any) -> None:
    x, y = number(a), number(b)
    for found, expected in [(a + b, x + y), (a - b, x - y), (a * b, x * y)]:
        assert number(found) in (None, expected)
    assert number(a * b) == x * y
    if y != 0:
        truncated = abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)
        assert number(divide(a, b, integer=True)) in (None, truncated)


@given(elements, elements)
def test_equality_is_only_told_when_certain(a: Any, b: Any) -> None:
    try:
        assert same(a, b) == (number(a) == number(b))
    except Unknown:
        assert isinstance(a, Dim) or isinstance(b, Dim)


def test_symbols_cancel() -> None:
    assert divide(N * 64, 64, integer=True) == N
    assert divide(N * H, H * N, integer=True) == 1
    assert N * 2 - N * 2 == 0
    assert str(N * H * 4) == "4*H*N"
    assert divide(N, 2, integer=True) == divide(N, 2, integer=True)  # opaque, but itself
    assert rounded(divide(N, 2, integer=False), "Floor") != N
    assert product((2, N, 3)) == N * 6


def test_symbols_do_not_grow_for_ever() -> None:
    terms = [Dim((f"a{i}",)) for i in range(100)]
    with pytest.raises(Unknown):
        sum(terms)


@pytest.mark.parametrize(
    ("op", "inputs", "attributes"),
    [
        ("Gather", [np.arange(12).reshape(3, 4), np.array([-1, 0])], {"axis": 1}),
        ("Slice", [np.arange(10), np.array([8]), np.array([-100]), np.array([0]), np.array([-3])], {}),
        (
            "Slice",
            [np.arange(10), np.array([8]), np.array([np.iinfo(np.int64).min]), np.array([0]), np.array([-1])],
            {},
        ),
        ("Slice", [np.arange(10), np.array([-4]), np.array([2**62])], {}),
        ("Div", [np.array([7, -7, 7, -7]), np.array([2, 2, -2, -2])], {}),
        ("Div", [np.array([7.0, -7.0], np.float32), np.float32(2)], {}),
        ("Squeeze", [np.zeros((1, 3, 1)), np.array([0])], {}),
        ("Unsqueeze", [np.zeros((3,), np.float32), np.array([0, 2])], {}),
        ("Split", [np.arange(6), np.array([2, 4])], {"axis": 0}),
        ("Reshape", [np.arange(12).reshape(3, 4), np.array([0, 2, -1])], {}),
        ("Flatten", [np.zeros((2, 3, 4), np.float32)], {"axis": 2}),
        ("Expand", [np.zeros((3, 1), np.float32), np.array([2, 1, 4])], {}),
        ("Concat", [np.array([1, 2]), np.array([3])], {"axis": 0}),
        ("Range", [np.array(3), np.array(11), np.array(4)], {}),
        ("Where", [np.array([True, False]), np.array([1, 2]), np.array([3, 4])], {}),
        ("ConstantOfShape", [np.array([2, 3])], {"value": numpy_helper.from_array(np.array([7]))}),
        ("Cast", [np.array([1.7, -1.7], np.float32)], {"to": TensorProto.INT64}),
        ("Max", [np.array([1, 5]), np.array(3)], {}),
        ("Transpose", [np.arange(6).reshape(2, 3)], {}),
        ("Floor", [np.array([1.5, -1.5], np.float32)], {}),
    ],
)
def test_light_operators_agree_with_the_reference(
    op: str, inputs: list[Any], attributes: dict[str, Any]
) -> None:
    inputs = [np.asarray(i) for i in inputs]
    found = evaluate(op, attributes, inputs)
    names = [f"i{k}" for k in range(len(inputs))]
    outs = [f"o{k}" for k in range(len(found))]
    graph = helper.make_graph(
        [helper.make_node(op, names, outs, **attributes)],
        "one",
        [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(i.dtype), i.shape)
            for n, i in zip(names, inputs, strict=True)
        ],
        [helper.make_tensor_value_info(o, TensorProto.UNDEFINED, None) for o in outs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    expected = ReferenceEvaluator(model).run(None, dict(zip(names, inputs, strict=True)))
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == np.asarray(theirs).dtype


def test_what_is_not_known_is_not_guessed() -> None:
    symbols = array([N, 3])
    for op, inputs in [
        ("Equal", [symbols, np.array([2, 3])]),
        ("Gather", [np.arange(9), symbols]),
        ("Max", [symbols, np.array([2, 2])]),
        ("Div", [np.array([1]), np.array([0])]),
        ("Reshape", [np.arange(6), symbols]),
        ("Sin", [np.zeros(1)]),
    ]:
        with pytest.raises(Unknown):
            evaluate(op, {}, inputs)


@pytest.mark.parametrize(
    ("shape", "target", "written", "output"),
    [
        ((N, 3, 4), [N, 12], [0, 12], (N, 12)),
        ((N, 3, 4), [N, -1], [0, 12], (N, 12)),
        ((N, 3, 4), [0, -1], [0, 12], (N, 12)),
        ((N, 3, 4), [N * 3, 4], [-1, 4], (N * 3, 4)),
        ((N, 3, 4), [3, N, 4], [3, -1, 4], (3, N, 4)),
        ((N, 3, H), [N, H, 3], [0, -1, 3], (N, H, 3)),
        ((N, 3, H), [H, N, 3], None, (H, N, 3)),
        ((N, 3, H), [N, 3, -1], [0, 3, 0], (N, 3, H)),
        (None, [N, 12], [-1, 12], (N, 12)),
        (None, [N, -1], None, None),
    ],
)
def test_reshape_targets(shape: Any, target: Any, written: Any, output: Any) -> None:
    found, dims = targets.reshape(shape, array(target), False)
    assert (None if found is None else found.tolist()) == written
    assert (None if dims is None else tuple(dims)) == output


def test_zero_is_literal_with_allowzero() -> None:
    found, _ = targets.reshape((N, 3), array([N, 3]), True)
    assert found is not None
    assert found.tolist() == [-1, 3]
    assert targets.reshape((0, N), array([N, 0]), True) == (None, [N, 0])


def test_a_dimension_is_copied_where_it_is_the_same() -> None:
    assert targets.copies((N, H, 32), array([N, -1, 4, 8]))
    assert not targets.copies((N, H, 32), array([H, N, 4, 8]))
    assert not targets.copies((N, 0, 32), array([N, 0, 4, 8]))


def test_heads_follow_the_data_whatever_zero_means() -> None:
    assert targets.follower(array([N, 4, H, 8])) == 1
    assert targets.follower(array([N, H, 4 * N, 8])) == 2
    assert targets.follower(array([N, -1, H, 8])) is None


def test_expand_slice_and_resize_targets() -> None:
    written, shape = targets.expand((N, 1, 4), array([N, 3, 4]))
    assert written is not None
    assert (written.tolist(), shape) == ([1, 3, 1], [N, 3, 4])
    assert targets.expand((1, 4), array([N, 4]))[0] is None
    assert targets.expand((H, 4), array([N, 4])) == (None, None)
    assert targets.slice_ends((N, 8), array([N]), [0]) is not None
    assert targets.slice_ends((N, 8), array([H]), [0]) is None
    scales = targets.resize_scales((N, 3, 7, 8), array([N, 3, 14, 4]))
    assert scales is not None
    assert scales.tolist() == [1, 1, 2, 0.5]
    assert targets.resize_scales((N, 3, 7, 8), array([N, 3, 10, 8])) is None
    assert targets.resize_scales((N, 3, H, 8), array([N, 3, H * 2, 8])) is not None
