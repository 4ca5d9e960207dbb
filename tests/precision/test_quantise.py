"""Networks in 8 bits against integer arithmetic by hand, against ONNX Runtime's own tool, and operator by operator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper

import rewriters
from onnxnas import graph
from onnxnas.errors import ModelError
from onnxnas.precision import Quantisable, Range, corrected, largest_weight, seen
from onnxnas.testing.operators import OperatorCase
from tests.ops.cases import CASES
from tests.rewriters.build import floats, model, residual
from tests.rewriters.build import run as simulated

Array = NDArray[Any]
INT8 = {"*": "int8"}


def session(content: bytes, saved: Path | None = None) -> onnxruntime.InferenceSession:
    """With all of ONNX Runtime's optimisations: with integers where it knows the pattern."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if saved is not None:
        options.optimized_model_filepath = str(saved)
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def run(content: bytes, feeds: Mapping[str, Array]) -> Sequence[Array]:
    found: list[Array] = session(content).run(None, dict(feeds))
    return found


MOST = largest_weight(run)  # of a weight, on this processor


def plainly(content: bytes, feeds: Mapping[str, Array]) -> Sequence[Array]:
    """As the file says, in floats."""
    return simulated(onnx.load_model_from_string(content), feeds)


def parts_of(proto: onnx.ModelProto) -> rewriters.Parts:
    return graph.load(proto).parts


def quantised(
    parts: rewriters.Parts, batches: Sequence[Mapping[str, Array]], precision: Mapping[str, str] = INT8
) -> onnx.ModelProto:
    found = Quantisable(parts, precision, MOST)
    made = found.quantised(seen(parts, found.tensors, run, batches)).proto()
    onnx.checker.check_model(made)
    return made


def decibels(got: Array, expected: Array) -> float:
    """Signal to noise."""
    a, b = got.astype(np.float64), expected.astype(np.float64)
    return float(10 * np.log10(np.square(b).sum() / max(np.square(a - b).sum(), 1e-30)))


def integer_conv(x: Array, w: Array, bias: Array, ranges: Mapping[str, Range]) -> Array:
    """Conv 1x1 and Relu in integers, by hand: (n, in, h, w), (out, in)."""
    before, after = ranges["x"], ranges["y"]
    qx = np.clip(np.rint(x / np.float32(before.scale)) + before.zero_point, 0, 255).astype(np.int64)
    scale = (np.abs(w).max(axis=1) / MOST).astype(np.float32)
    qw = np.rint(w / scale[:, None].astype(np.float64)).astype(np.int64)
    qb = np.rint(bias / (scale * np.float32(before.scale)).astype(np.float64)).astype(np.int64)
    sums = np.einsum("oi,nihw->nohw", qw, qx - before.zero_point) + qb[:, None, None]
    y = np.maximum(sums * (scale * np.float32(before.scale))[:, None, None].astype(np.float64), 0)
    steps = np.clip(np.rint(y / after.scale) + after.zero_point, 0, 255) - after.zero_point
    return steps * after.scale


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10_000), channels=st.integers(1, 9), high=st.floats(0.1, 50), low=st.floats(-50, 0)
)
def test_integer_arithmetic_by_hand(seed: int, channels: int, high: float, low: float) -> None:
    rng = np.random.default_rng(seed)
    w = floats(rng, channels, 3) * rng.uniform(0.01, 10, (channels, 1)).astype(np.float32)
    bias, x = floats(rng, channels) * 10, floats(rng, 2, 3, 4, 4) * np.float32(high)
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], "conv"),
        helper.make_node("Relu", ["c"], ["y"], "relu"),
    ]
    proto = model(nodes, {"x": ["N", 3, 4, 4]}, ["y"], {"w": w[:, :, None, None], "b": bias})
    parts = parts_of(proto)
    ranges = {"x": Range(low, high), "y": Range(0.0, 3 * high)}
    found = Quantisable(parts, INT8, MOST)
    assert set(found.tensors) == {"x", "y"}
    made = found.quantised(ranges).proto()
    expected = integer_conv(x, w, bias, ranges)
    step = ranges["y"].scale
    for got in (simulated(made, {"x": x})[0], run(made.SerializeToString(), {"x": x})[0]):
        apart = np.abs(got - expected) / step
        assert apart.max() <= 1.001
        assert (apart > 0.01).mean() < 0.05  # where a sum lies between two steps it may go either way


def test_a_range_has_zero_as_a_step() -> None:
    for low, high in ((-1.0, 3.0), (0.0, 0.0), (0.0, 6.0), (-5.0, 0.0), (-1e-30, 1e30)):
        found = Range(low, high)
        assert 0 <= found.zero_point <= 255
        assert found.scale > 0
        reach = (np.array([0, 255]) - found.zero_point) * found.scale
        assert np.allclose(reach, (low, high), atol=found.scale) or (low, high) == (0.0, 0.0)


def test_large_biases_and_dead_channels_fit_their_integers() -> None:
    """A bias in steps of a tiny weight would overflow 32 bits; a channel of zeros has no largest weight."""
    w = np.array([[1e-9, 0, 0], [0, 0, 0], [1, -1, 0.5]], np.float32)
    bias = np.array([5, 3, -2], np.float32)
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["y"], "conv")]
    proto = model(nodes, {"x": ["N", 3, 2, 2]}, ["y"], {"w": w[:, :, None, None], "b": bias})
    x = np.random.default_rng(0).uniform(0, 1, (4, 3, 2, 2)).astype(np.float32)
    made = quantised(parts_of(proto), [{"x": x}])
    expected = simulated(proto, {"x": x})[0]
    for got in (simulated(made, {"x": x})[0], run(made.SerializeToString(), {"x": x})[0]):
        assert np.abs(got - expected).max() < 0.05


def count(made: onnx.ModelProto, place: Path) -> Counter[str]:
    """The operators that ONNX Runtime runs."""
    session(made.SerializeToString(), place / "optimised.onnx")
    return Counter(node.op_type for node in onnx.load(place / "optimised.onnx").graph.node)


def test_as_ONNX_Runtimes_own_tool(tmp_path: Path) -> None:
    """As near to the network in floats, and as much of it in integers."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    rng = np.random.default_rng(0)
    proto = residual(rng, 16, 24, 4)
    batches = [{"x": floats(rng, 16, 3, 6, 6)} for _ in range(8)]

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = list(batches)

        def get_next(self) -> Any:
            return self.left.pop() if self.left else None

    onnx.save(proto, tmp_path / "floats.onnx")
    quantize_static(
        tmp_path / "floats.onnx", tmp_path / "theirs.onnx", Reader(), per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, reduce_range=MOST < 127,
    )  # fmt: skip
    theirs, ours = onnx.load(tmp_path / "theirs.onnx"), quantised(parts_of(proto), batches)
    kinds = ("QLinearConv", "QLinearAdd", "QLinearGlobalAveragePool", "Conv", "Add", "Relu")
    ran, expected = count(ours, tmp_path), count(theirs, tmp_path)
    assert {k: ran[k] for k in kinds if k != "QLinearGlobalAveragePool"} == {
        k: expected[k] for k in kinds if k != "QLinearGlobalAveragePool"
    }
    assert ran["QLinearConv"] == 9
    assert ran["QLinearAdd"] == 4
    x = {"x": floats(rng, 64, 3, 6, 6)}
    exact = simulated(proto, x)[0]
    near = decibels(run(ours.SerializeToString(), x)[0], exact)
    assert near > decibels(run(theirs.SerializeToString(), x)[0], exact) - 1.5
    assert near > 25


# Operators of which a small change of what comes in is a large change of what goes out.
JUMPING: tuple[str, ...] = ("ArgMax", "Hardmax", "GridSample", "Bitwise", "RoiAlign")
if MOST < 127:  # with weights of 7 bits another box is kept
    JUMPING = (*JUMPING, "NonMaxSuppression")


@pytest.mark.parametrize("case", CASES, ids=[f"{i}-{c.name}" for i, c in enumerate(CASES)])
def test_every_operator(case: OperatorCase) -> None:
    """Whatever stands between, the rounded network runs, as floats and as integers, and is near to the exact one."""
    loaded = graph.load(case.model(), least_opset=13)
    batches = [graph.example_inputs(loaded, seed=seed, batch=2) for seed in range(4)]
    try:
        found = Quantisable(loaded.parts, INT8, MOST)
        ranges = seen(loaded.parts, found.tensors, run, batches)
        # not optimised: see below
        made = corrected(found, ranges, plainly, batches).proto()
        onnx.checker.check_model(made)
    except ModelError as error:
        if "nothing can be computed in 8 bits" not in str(error):
            raise
        return
    least = 6 if case.name.startswith(JUMPING) else 12
    # ONNX Runtime loses the sizes of a Resize with axes where it computes with integers
    optimised = not any(node.op_type == "Resize" and "axes" in node.attributes for node in loaded.nodes)
    for batch in batches:
        exact = simulated(loaded.model, batch)
        found = [simulated(made, batch), *([run(made.SerializeToString(), batch)] if optimised else [])]
        for outputs in found:
            for a, b in zip(exact, outputs, strict=True):
                if a.dtype.kind == "f" and np.abs(a).max(initial=0) > 0:
                    assert decibels(b, a) > least


def test_one_layer_alone_and_all_but_one() -> None:
    rng = np.random.default_rng(0)
    parts, x = parts_of(residual(rng, 8, 8, 2)), {"x": floats(rng, 8, 3, 6, 6)}
    exact = run(parts.to_bytes(), x)[0]
    noise = {}
    for name, precision in {
        "all": INT8,
        "one": {"b0.conv1": "int8"},
        "others": {"*": "int8", "b0.conv1": "fp32"},
    }.items():
        found = Quantisable(parts, precision, MOST)
        noise[name] = decibels(run(quantised(parts, [x], precision).SerializeToString(), x)[0], exact)
        names = {"stem", *(f"b{i}.conv{j}" for i in range(2) for j in (1, 2))}
        wanted = {"all": names, "one": {"b0.conv1"}, "others": names - {"b0.conv1"}}
        assert set(found.nodes) == wanted[name]
    assert noise["one"] > noise["others"] - 1
    assert noise["one"] > noise["all"]


def test_a_layer_in_floats_keeps_its_weights() -> None:
    """ONNX Runtime would give 8 bits, and one scale for all channels, to a convolution between rounded tensors."""
    rng = np.random.default_rng(0)
    loud = floats(rng, 8, 8, 1, 1)
    loud[0] *= 1000  # its channel is clipped to the size of the others
    weights = {"w0": floats(rng, 8, 3, 1, 1), "w1": loud, "w2": floats(rng, 4, 8, 1, 1)}
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["c0"], "conv0"),
        helper.make_node("Relu", ["c0"], ["r0"], "relu"),
        helper.make_node("Conv", ["r0", "w1"], ["c1"], "conv1"),
        helper.make_node("Clip", ["c1", "low", "high"], ["r1"], "clip"),
        helper.make_node("Conv", ["r1", "w2"], ["y"], "conv2"),
    ]
    limits = {"low": np.float32(0), "high": np.float32(1)}
    proto = model(nodes, {"x": ["N", 3, 6, 6]}, ["y"], {**weights, **limits})
    parts, x = parts_of(proto), {"x": floats(rng, 16, 3, 6, 6)}
    exact = simulated(proto, x)[0]
    mixed = quantised(parts, [x], {"*": "int8", "conv1": "fp32"})
    assert decibels(simulated(mixed, x)[0], exact) > 25
    assert decibels(run(mixed.SerializeToString(), x)[0], exact) > 25
    np.testing.assert_array_equal(
        next(onnx.numpy_helper.to_array(t) for t in mixed.graph.initializer if t.name == "w1"), loud
    )


def test_refused() -> None:
    rng = np.random.default_rng(0)
    parts = parts_of(residual(rng, 4, 4, 1))
    with pytest.raises(ModelError, match="nothing can be computed in 8 bits"):
        Quantisable(parts, {"*": "fp32"})
    found = Quantisable(parts, INT8, MOST)
    bad = np.full((2, 3, 6, 6), np.inf, np.float32)
    with pytest.raises(ModelError, match="not finite on the samples"):
        seen(parts, found.tensors, run, [{"x": bad}])


def separable(rng: np.random.Generator, blocks: int) -> onnx.ModelProto:
    """Blocks as MobileNetV2 has them, which rounding moves the means of; every second convolution has a bias."""
    weights: dict[str, Array] = {"low": np.float32(0), "high": np.float32(6)}
    nodes, last, width = [], "x", 3
    for block in range(blocks):
        for part, (out, kernel, group) in enumerate(((24, 1, 1), (24, 3, 24), (8, 1, 1))):
            name = f"b{block}.{part}"
            inputs = [last, f"{name}.w"]
            weights[inputs[1]] = floats(rng, out, 1 if group > 1 else width, kernel, kernel)
            weights[inputs[1]] *= np.float32(2.5 / np.sqrt(weights[inputs[1]][0].size))
            if part != 1:
                inputs.append(f"{name}.b")
                weights[inputs[2]] = floats(rng, out)
            nodes.append(
                helper.make_node("Conv", inputs, [f"{name}.c"], name, group=group, pads=[kernel // 2] * 4)
            )
            last, width = f"{name}.c", out
            if part < 2:
                nodes.append(helper.make_node("Clip", [last, "low", "high"], [f"{name}.r"], f"{name}.clip"))
                last = f"{name}.r"
    nodes.append(helper.make_node("Identity", [last], ["y"], "out"))
    return model(nodes, {"x": ["N", 3, 12, 12]}, ["y"], weights)


@pytest.mark.parametrize("seed", range(3))
def test_biases_put_the_means_back(seed: int) -> None:
    """On samples that they were not made by: layers' means and the outputs are nearer to those in floats."""
    rng = np.random.default_rng(seed)
    proto = separable(rng, 5)
    parts, batches = parts_of(proto), [{"x": floats(rng, 16, 3, 12, 12)} for _ in range(4)]
    x = {"x": floats(rng, 64, 3, 12, 12)}
    found = Quantisable(parts, INT8, MOST)
    ranges = seen(parts, found.tensors, run, batches)
    plain, better = found.quantised(ranges), corrected(found, ranges, run, batches)
    assert count_of(better) == count_of(plain)
    ranks = {layer.tensor: layer.rank for layer in found.biased}
    assert len(ranks) == 15
    exact = run(rewriters.with_means(parts, ranks).to_bytes(), x)
    off = [
        [float(np.abs(a - b).mean()) for a, b in zip(means, exact, strict=True)]
        for means in (run(rewriters.with_means(p, ranks).to_bytes(), x) for p in (plain, better))
    ]
    assert sum(off[1]) < 0.5 * sum(off[0])
    outputs = run(parts.to_bytes(), x)[0]
    near = [decibels(run(p.to_bytes(), x)[0], outputs) for p in (plain, better)]
    assert near[1] > near[0]


def count_of(parts: rewriters.Parts) -> Counter[str]:
    """Operators, without those that a bias takes which was not there."""
    found = Counter(node.op_type for node in parts.structure.graph.node)
    del found["DequantizeLinear"]
    return found


def test_biases_corrected_one_layer_after_the_other_are_the_same() -> None:
    """As written in the paper: a layer's bias is found in a network whose layers before it have theirs."""
    rng = np.random.default_rng(3)
    proto = separable(rng, 2)
    parts, batch = parts_of(proto), {"x": floats(rng, 32, 3, 12, 12)}
    found = Quantisable(parts, INT8, MOST)
    # so wide that nothing is cut off, which a bias changes and what is moved behind it does not
    ranges = {t: Range(2 * r.low, 2 * r.high) for t, r in seen(parts, found.tensors, run, [batch]).items()}
    ranks = {layer.tensor: layer.rank for layer in found.biased}
    exact = dict(zip(ranks, run(rewriters.with_means(parts, ranks).to_bytes(), batch), strict=True))
    slow = parts
    for layer in found.biased:
        rounded = Quantisable(slow, INT8, MOST).quantised(ranges)
        (mean,) = run(rewriters.with_means(rounded, {layer.tensor: layer.rank}).to_bytes(), batch)
        bias = layer.bias + (exact[layer.tensor] - mean).ravel()
        result = rewriters.apply(slow, [rewriters.ReplaceConstant(layer.node, 2, bias.astype(np.float32))])
        assert isinstance(result, rewriters.Rewritten)
        slow = result.parts
    made = [corrected(found, ranges, run, [batch]), Quantisable(slow, INT8, MOST).quantised(ranges)]
    means = [run(rewriters.with_means(p, ranks).to_bytes(), batch) for p in made]
    plain = run(rewriters.with_means(found.quantised(ranges), ranks).to_bytes(), batch)
    apart = sum(float(np.abs(a - b).sum()) for a, b in zip(*means, strict=True))
    moved = sum(float(np.abs(a - b).sum()) for a, b in zip(plain, exact.values(), strict=True))
    assert apart < 0.1 * moved
