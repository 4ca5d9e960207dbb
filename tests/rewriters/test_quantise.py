"""Q and DQ around what shall compute with 8 bits, against the rounding done by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from rewriters import (
    Parts,
    Refusal,
    Rewritten,
    Round,
    StoreIntegers,
    apply,
    with_means,
    with_means_given,
    with_ranges,
)
from tests.rewriters.build import close, floats, model, residual, run, values


def rounded(x: Any, scale: float, zero: int) -> Any:
    return ((np.clip(np.rint(x / np.float32(scale)) + zero, 0, 255) - zero) * np.float32(scale)).astype(
        np.float32
    )


def tail(rng: np.random.Generator, *, opset: int = 17, shared: bool = False) -> onnx.ModelProto:
    """x -> Relu -> a -> Conv -> b, and a -> Neg -> c; `shared`: the convolution's weight is an output too."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], "relu"),
        helper.make_node("Conv", ["a", "w", "bias"], ["b"], "conv"),
        helper.make_node("Neg", ["a"], ["c"], "neg"),
    ]
    weights = {"w": floats(rng, 3, 3, 1, 1), "bias": floats(rng, 3)}
    if shared:
        nodes.append(helper.make_node("Conv", ["x", "w"], ["d"], "other"))
    outputs = ["b", "c", *(["d"] if shared else [])]
    return model(nodes, {"x": [2, 3, 4, 4]}, outputs, weights, opset=opset)


def test_whoever_reads_it_reads_it_rounded(rng: np.random.Generator) -> None:
    full, x = tail(rng), floats(rng, 2, 3, 4, 4)
    result = apply(full, [Round("a", 0.02, 7)])
    assert isinstance(result, Rewritten)
    a = rounded(np.maximum(x, 0), 0.02, 7)
    w = values(full)
    b = np.einsum("oi,nihw->nohw", w["w"][:, :, 0, 0], a) + w["bias"][:, None, None]
    close(run(result.model, {"x": x}), [b.astype(np.float32), -a], 1e-6)


def test_only_the_readers_named_read_it_rounded(rng: np.random.Generator) -> None:
    full, x = tail(rng), floats(rng, 2, 3, 4, 4)
    result = apply(full, [Round("a", 0.02, 0, ("conv",))])
    assert isinstance(result, Rewritten)
    a, w = rounded(np.maximum(x, 0), 0.02, 0), values(full)
    b = np.einsum("oi,nihw->nohw", w["w"][:, :, 0, 0], a) + w["bias"][:, None, None]
    close(run(result.model, {"x": x}), [b.astype(np.float32), -np.maximum(x, 0)], 1e-6)


def test_an_output_keeps_its_name_and_an_input_its_own(rng: np.random.Generator) -> None:
    full, x = tail(rng), floats(rng, 2, 3, 4, 4)
    result = apply(full, [Round("b", 0.05, 100), Round("x", 0.01, 128, ("relu",))])
    assert isinstance(result, Rewritten)
    assert [o.name for o in result.model.graph.output] == ["b", "c"]
    assert [i.name for i in result.model.graph.input] == ["x"]
    a, w = np.maximum(rounded(x, 0.01, 128), 0), values(full)
    b = np.einsum("oi,nihw->nohw", w["w"][:, :, 0, 0], a) + w["bias"][:, None, None]
    found = run(result.model, {"x": x})
    assert np.abs(found[0] - rounded(b, 0.05, 100)).max() <= 0.05 * 1.001  # a sum may round the other way
    close(found[1:], [-a], 1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), axis=st.integers(0, 1), whole=st.booleans())
def test_integers_times_their_scales(seed: int, axis: int, whole: bool) -> None:
    rng = np.random.default_rng(seed)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "product")]
    full = model(nodes, {"x": [2, 5]}, ["y"], {"w": floats(rng, 5, 4)})
    integers = rng.integers(-127, 128, (5, 4)).astype(np.int8)
    scale = np.float32(rng.uniform(0.001, 1)) if whole else rng.uniform(0.001, 1, (5, 4)[axis])
    scale = np.asarray(scale, np.float32)
    result = apply(full, [StoreIntegers("product", 1, integers, scale, axis)])
    assert isinstance(result, Rewritten)
    x = floats(rng, 2, 5)
    spread = scale if whole else scale.reshape((-1, 1) if axis == 0 else (1, -1))
    close(run(result.model, {"x": x}), [x @ (integers * spread).astype(np.float32)], 1e-5)
    assert "w" not in values(result.model)


def test_those_given_the_same_share_it_and_others_keep_the_floats(rng: np.random.Generator) -> None:
    full, x = tail(rng, shared=True), floats(rng, 2, 3, 4, 4)
    integers = np.ones((3, 3, 1, 1), np.int8)
    scale = np.full(3, 0.5, np.float32)
    one = apply(full, [StoreIntegers("conv", 1, integers, scale)])
    assert isinstance(one, Rewritten)
    close(run(one.model, {"x": x})[2:], run(full, {"x": x})[2:], 1e-6)
    both = apply(full, [StoreIntegers(name, 1, integers, scale) for name in ("conv", "other")])
    assert isinstance(both, Rewritten)
    assert sum(n.op_type == "DequantizeLinear" for n in both.model.graph.node) == 1


@pytest.mark.parametrize("readers", [None, ("conv",)])
def test_what_stands_apart_reads_the_same_numbers(
    rng: np.random.Generator, readers: tuple[str, ...] | None
) -> None:
    full, x = tail(rng), {"x": floats(rng, 2, 3, 4, 4)}
    plain = apply(full, [Round("a", 0.02, 7, readers)])
    apart = apply(full, [Round("a", 0.02, 7, readers, (("conv", 1, 3),))])
    assert isinstance(plain, Rewritten)
    assert isinstance(apart, Rewritten)
    close(run(apart.model, x), run(plain.model, x), 1e-6)
    conv = next(node for node in apart.model.graph.node if node.op_type == "Conv")
    own = next(node for node in apart.model.graph.node if conv.input[0] in node.output)
    assert values(apart.model)[own.input[1]].shape == (3,)


REFUSED = [
    (Round("nothing", 0.1, 0), "no activation"),
    (Round("w", 0.1, 0, ("conv",)), "no activation"),
    (Round("x", 0.1, 0), "is an input"),
    (Round("a", 0.0, 0), "cannot have scale"),
    (Round("a", float("nan"), 0), "cannot have scale"),
    (Round("a", 0.1, 256), "cannot have scale"),
    (Round("a", 0.1, 0, ("relu",)), "does not read"),
    (Round("a", 0.1, 0, ("neg",), (("conv", 1, 3),)), "does not read"),
    (StoreIntegers("nothing", 1, np.ones((3, 3, 1, 1), np.int8), np.float32(1)), "no single node"),
    (StoreIntegers("conv", 0, np.ones((3, 3, 1, 1), np.int8), np.float32(1)), "not a constant"),
    (StoreIntegers("conv", 1, np.ones((3, 3), np.int8), np.float32(1)), "has shape"),
    (StoreIntegers("conv", 1, np.ones((3, 3, 1, 1), np.int8), np.ones(2, np.float32)), "scales along"),
]


@pytest.mark.parametrize(("edit", "reason"), REFUSED)
def test_refused(rng: np.random.Generator, edit: Any, reason: str) -> None:
    result = apply(tail(rng), [edit])
    assert isinstance(result, Refusal)
    assert reason in result.reason


def test_scales_along_an_axis_take_their_opset(rng: np.random.Generator) -> None:
    edit = StoreIntegers("conv", 1, np.ones((3, 3, 1, 1), np.int8), np.ones(3, np.float32))
    result = apply(tail(rng, opset=12), [edit])
    assert isinstance(result, Refusal)
    assert "opset 13" in result.reason


@pytest.mark.parametrize("opset", [11, 17, 18])
def test_ranges_are_those_of_each_sample(rng: np.random.Generator, opset: int) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["s0"], "stem", pads=[1] * 4),
        helper.make_node("Relu", ["s0"], ["y"], "relu"),
    ]
    full = model(nodes, {"x": ["N", 3, 6, 6]}, ["y"], {"w": floats(rng, 4, 3, 3, 3)}, opset=opset)
    x = floats(rng, 5, 3, 6, 6)
    probe = onnx.ModelProto()
    probe.CopyFrom(full)
    kind = onnx.TensorProto.FLOAT
    probe.graph.output.insert(0, helper.make_tensor_value_info("s0", kind, [None] * 4))
    s0, y = run(probe, {"x": x})
    told = run(with_ranges(Parts.of(full), ["x", "s0", "y"]).proto(), {"x": x})
    expected = [f(t.reshape(5, -1), axis=1) for f in (np.min, np.max) for t in (x, s0, y)]
    close(told, expected, 1e-6)


def test_ranges_take_no_name_that_is_there(rng: np.random.Generator) -> None:
    full = residual(rng, 4, 4, 1)
    for node in full.graph.node:
        node.input[:] = ["s0_rows" if name == "r0" else name for name in node.input]
        node.output[:] = ["s0_rows" if name == "r0" else name for name in node.output]
    found = with_ranges(Parts.of(full), ["s0", "s0_rows"]).proto()
    assert len(run(found, {"x": floats(rng, 2, 3, 6, 6)})) == 4


@pytest.mark.parametrize("opset", [11, 17, 18])
def test_means_of_channels_are_told_and_given(rng: np.random.Generator, opset: int) -> None:
    """Two convolutions in a row: what is told of the second is of an input that has been moved."""
    w = [floats(rng, 4, 3, 3, 3), floats(rng, 2, 4, 1, 1)]
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["c0"], "first", pads=[1] * 4),
        helper.make_node("Relu", ["c0"], ["r0"], "relu"),
        helper.make_node("Conv", ["r0", "w1"], ["c1"], "second"),
        helper.make_node("Flatten", ["c1"], ["c0_raw"], "flat"),  # a name that would be taken
    ]
    weights = {"w0": w[0], "w1": w[1]}
    full = model(nodes, {"x": ["N", 3, 6, 6]}, ["c0_raw"], weights, opset=opset)
    x = floats(rng, 5, 3, 6, 6)

    def apart(moves: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
        probe = onnx.ModelProto()
        probe.CopyFrom(full)
        bias = {"b0": np.full(4, moves[0], np.float32), "b1": np.full(2, moves[1], np.float32)}
        for name, value in bias.items():
            probe.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
            probe.graph.node[0 if name == "b0" else 2].input.append(name)
        del probe.graph.output[:]
        for name in ("c0", "c1"):
            probe.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None] * 4))
        first, second = run(probe, {"x": x})
        return first.mean((0, 2, 3), keepdims=True), second.mean((0, 2, 3), keepdims=True)

    ranks = {"c1": 4, "c0": 4}
    means = apart((0.0, 0.0))
    close(run(with_means(Parts.of(full), ranks).proto(), {"x": x}), means[::-1], 1e-5)
    given = with_means_given(Parts.of(full), ranks).proto()
    onnx.checker.check_model(given)
    names = [i.name for i in given.graph.input]
    moved = apart((0.5, -2.0))
    told = run(given, {"x": x, names[1]: moved[1], names[2]: moved[0]})
    close(told, [np.full((1, 2, 1, 1), -2.0, np.float32), np.full((1, 4, 1, 1), 0.5, np.float32)], 1e-4)
