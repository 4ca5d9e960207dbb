"""Which weights count as tied: those of which folding would leave several."""

from __future__ import annotations

import numpy as np
from onnx import helper

from rewriters import canonicalise
from tests.rewriters.build import close, floats, model, run, values


def test_a_weight_that_is_standardised_at_run_time_becomes_constant(rng: np.random.Generator) -> None:
    """It is read for its mean, its spread and itself, and one tensor comes of all that. It has more than 1 MiB."""
    w = floats(rng, 600, 512)
    nodes = [
        helper.make_node("ReduceMean", ["w"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("Sub", ["w", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "centred"], ["square"]),
        helper.make_node("ReduceMean", ["square"], ["var"], axes=[1], keepdims=1),
        helper.make_node("Sqrt", ["var"], ["std"]),
        helper.make_node("Div", ["centred", "std"], ["standard"]),
        helper.make_node("Gemm", ["x", "standard"], ["y"], transB=1),
    ]
    out = canonicalise(model(nodes, {"x": [2, 512]}, ["y"], {"w": w})).model
    assert [n.op_type for n in out.graph.node] == ["Gemm"]
    expected = (w - w.mean(1, keepdims=True)) / w.std(1, keepdims=True)
    close([values(out)[out.graph.node[0].input[1]]], [expected], 1e-5)


def test_a_weight_that_two_layers_transpose_for_themselves_is_tied(rng: np.random.Generator) -> None:
    w = floats(rng, 40, 40)
    nodes = [
        helper.make_node("Transpose", ["w"], ["first"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "first"], ["a"]),
        helper.make_node("Transpose", ["w"], ["second"], perm=[1, 0]),
        helper.make_node("MatMul", ["a", "second"], ["y"]),
    ]
    full = model(nodes, {"x": [2, 40]}, ["y"], {"w": w})
    out = canonicalise(full).model
    assert [n.op_type for n in out.graph.node].count("Transpose") == 2
    x = {"x": floats(rng, 2, 40)}
    close(run(out, x), run(full, x), 0)
