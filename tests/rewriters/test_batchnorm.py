"""BatchNormalization in and out of linear layers, against ONNX Runtime's own BatchNormalization."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from rewriters import (
    FoldBatchNorm,
    InsertBatchNorm,
    Keep,
    Refusal,
    Rewritten,
    SetInitializer,
    apply,
    fold_all,
)
from tests.rewriters.build import Array, close, floats, model, run, values


def statistics(rng: np.random.Generator, n: int) -> dict[str, Array]:
    return {
        "scale": floats(rng, n),
        "bias": floats(rng, n),
        "mean": floats(rng, n),
        "var": np.exp(floats(rng, n)),
    }


def layer(
    rng: np.random.Generator, op: str, shape: tuple[int, ...], bias: tuple[int, ...] | None, **attributes: Any
) -> tuple[onnx.ModelProto, int]:
    """op -> BatchNormalization -> Relu; and the number of channels."""
    group = attributes.get("group", 1)
    channels = {"Conv": shape[0], "ConvTranspose": shape[1] * group}.get(
        op, shape[0] if attributes.get("transB") else shape[-1]
    )
    features = {"Conv": shape[1] * group if len(shape) > 1 else 0, "ConvTranspose": shape[0]}.get(
        op, shape[1] if attributes.get("transB") else shape[0]
    )
    s = statistics(rng, channels)
    weights: dict[str, Array] = {"w": floats(rng, *shape), **s}
    inputs = ["x", "w"]
    if bias is not None:
        weights["b"] = floats(rng, *bias)
        inputs.append("b")
    nodes = [
        helper.make_node(op, inputs, ["c"], "layer", **attributes),
        helper.make_node(
            "BatchNormalization", ["c", "scale", "bias", "mean", "var"], ["n"], "bn", epsilon=1e-3
        ),
        helper.make_node("Relu", ["n"], ["y"], "relu"),
    ]
    extent = [5, 6, 4][: len(shape) - 2]
    return model(nodes, {"x": [2, features, *extent]}, ["y"], weights), channels


LAYERS: list[tuple[str, tuple[int, ...], tuple[int, ...] | None, dict[str, Any]]] = [
    ("Conv", (4, 3, 3, 3), None, {}),
    ("Conv", (4, 3, 3), (4,), {"pads": [1, 1]}),
    ("Conv", (6, 1, 3, 3), (6,), {"group": 6}),
    ("ConvTranspose", (3, 4, 3, 3), (4,), {"strides": [2, 2]}),
    ("ConvTranspose", (4, 3, 2, 2), None, {"group": 2}),
    ("Gemm", (3, 5), (5,), {"alpha": 0.5, "beta": 2.0}),
    ("Gemm", (5, 3), (1, 5), {"transB": 1}),
    ("Gemm", (3, 5), (1,), {"beta": 0.5}),
    ("Gemm", (5, 3), None, {"transB": 1, "beta": 0.0}),
]


@pytest.mark.parametrize(("op", "shape", "bias", "attributes"), LAYERS)
def test_folding_leaves_the_function(
    rng: np.random.Generator,
    op: str,
    shape: tuple[int, ...],
    bias: tuple[int, ...] | None,
    attributes: dict[str, Any],
) -> None:
    full, _ = layer(rng, op, shape, bias, **attributes)
    result = fold_all(full)
    assert isinstance(result, Rewritten)
    assert [n.op_type for n in result.model.graph.node] == [op, "Relu"]
    x = {"x": floats(rng, *[d.dim_value for d in full.graph.input[0].type.tensor_type.shape.dim])}
    close(run(result.model, x), run(full, x))


@pytest.mark.parametrize(("op", "shape", "bias", "attributes"), LAYERS)
def test_inserting_equals_a_model_that_has_it(
    rng: np.random.Generator,
    op: str,
    shape: tuple[int, ...],
    bias: tuple[int, ...] | None,
    attributes: dict[str, Any],
) -> None:
    expected, channels = layer(rng, op, shape, bias, **attributes)
    s = {n: values(expected)[n] for n in ("scale", "bias", "mean", "var")}
    bare = onnx.ModelProto()
    bare.CopyFrom(expected)
    del bare.graph.node[1]
    bare.graph.node[0].output[0] = "n"
    edit = InsertBatchNorm("layer", s["scale"], s["bias"], s["mean"], s["var"], 1e-3)
    result = apply(bare, [edit])
    assert isinstance(result, Rewritten)
    assert values(result.model)["layer.bn.running_var"].shape == (channels,)
    x = {"x": floats(rng, *[d.dim_value for d in bare.graph.input[0].type.tensor_type.shape.dim])}
    close(run(result.model, x), run(expected, x))


def test_inserted_behind_a_graph_output_and_sliced_with_the_layer(rng: np.random.Generator) -> None:
    w, s, kept = floats(rng, 6, 3, 1, 1), statistics(rng, 6), np.array([4, 1])
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], "conv")]
    full = model(nodes, {"x": [1, 3, 4, 4]}, ["y"], {"w": w})
    result = apply(
        full, [InsertBatchNorm("conv", s["scale"], s["bias"], s["mean"], s["var"]), Keep("w", 0, kept)]
    )
    assert isinstance(result, Rewritten)
    x = floats(rng, 1, 3, 4, 4)
    c = np.einsum("oi,nihw->nohw", w[:, :, 0, 0], x)
    a = s["scale"] / np.sqrt(s["var"] + 1e-5)
    y = (c - s["mean"].reshape(-1, 1, 1)) * a.reshape(-1, 1, 1) + s["bias"].reshape(-1, 1, 1)
    close(run(result.model, {"x": x}), [y[:, kept]])


def test_what_cannot_be_folded_stays_and_is_named(rng: np.random.Generator) -> None:
    full, _ = layer(rng, "Conv", (4, 3, 3, 3), None)
    full.graph.output.append(helper.make_tensor_value_info("c", 1, None))
    before = full.SerializeToString(deterministic=True)
    result = fold_all(full)
    assert isinstance(result, Rewritten)
    assert result.done == ("kept BatchNormalization 'bn': the output of 'layer' is used elsewhere too",)
    assert "BatchNormalization" in [n.op_type for n in result.model.graph.node]
    assert full.SerializeToString(deterministic=True) == before


def test_a_weight_shared_with_another_layer_is_scaled_for_one(rng: np.random.Generator) -> None:
    full, _ = layer(rng, "Conv", (3, 3, 1, 1), None)
    full.graph.node.insert(0, helper.make_node("Conv", ["x", "w"], ["x2"], "first"))
    full.graph.node[1].input[0] = "x2"
    result = fold_all(full)
    assert isinstance(result, Rewritten)
    x = {"x": floats(rng, 2, 3, 5, 6)}
    close(run(result.model, x), run(full, x))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda g: g.node[1].attribute.append(helper.make_attribute("training_mode", 1)), "training mode"),
        (lambda g: g.initializer.remove(next(t for t in g.initializer if t.name == "mean")), "'mean' is not"),
        (lambda g: setattr(g.node[0], "op_type", "Custom"), "comes before"),
    ],
)
def test_refusals(rng: np.random.Generator, change: Any, reason: str) -> None:
    full, _ = layer(rng, "Conv", (4, 3, 3, 3), None)
    change(full.graph)
    result = apply(full, [FoldBatchNorm("bn")])
    assert isinstance(result, Refusal)
    assert reason in result.reason
    assert result.node == "bn"


def test_setting_a_value_that_was_folded_away_is_refused(rng: np.random.Generator) -> None:
    full, _ = layer(rng, "Conv", (4, 3, 3, 3), None)
    result = apply(full, [FoldBatchNorm("bn"), SetInitializer("scale", np.ones(4, np.float32))])
    assert isinstance(result, Refusal)
    assert "set it before folding" in result.reason


def test_insert_with_a_wrong_number_of_values_is_refused(rng: np.random.Generator) -> None:
    full, _ = layer(rng, "Conv", (4, 3, 3, 3), None)
    s = statistics(rng, 5)
    result = apply(full, [InsertBatchNorm("layer", s["scale"], s["bias"], s["mean"], s["var"])])
    assert isinstance(result, Refusal)
    assert "expected (4,)" in result.reason
