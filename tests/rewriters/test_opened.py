"""A graph that is lent to one surgery after the other is to each as if it were freshly opened."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxnas.graph import load, rewritten
from onnxnas.testing import graphs
from rewriters import (
    Bypass,
    CropKernel,
    Edit,
    FoldBatchNorm,
    InsertBatchNorm,
    Keep,
    Parts,
    Refusal,
    ReplaceConstant,
    Rewritten,
    SetAttribute,
    SetInitializer,
    apply,
)
from rewriters.surgery import Surgery
from tests.rewriters.build import floats, model
from tests.space.test_plan import build


def everything(rng: np.random.Generator) -> onnx.ModelProto:
    """x -> Conv -> BatchNormalization -> Relu (an output) -> Neg -> If, whose bodies read Relu, Neg and w."""
    bodies = [
        helper.make_graph(
            [
                helper.make_node(op, ["a", "b"], [f"i_{op}"]),
                helper.make_node("Mul", [f"i_{op}", "w"], [f"o_{op}"]),
            ],
            op,
            [],
            [helper.make_tensor_value_info(f"o_{op}", 1, None)],
        )
        for op in ("Add", "Sub")
    ]
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], "conv", pads=[1] * 4),
        helper.make_node("BatchNormalization", ["c", "s", "t", "m", "v"], ["n"], "bn"),
        helper.make_node("Relu", ["n"], ["a"], "relu"),
        helper.make_node("Neg", ["a"], ["b"], "neg"),
        helper.make_node("If", ["yes"], ["y"], "if", then_branch=bodies[0], else_branch=bodies[1]),
        helper.make_node("Elu", ["y"], ["z"], "elu", alpha=0.5),
    ]
    weights = {"k": floats(rng, 4, 3, 3, 3), "w": floats(rng, 4, 1, 1), "v": np.ones(4, np.float32)}
    weights |= {name: floats(rng, 4) for name in "stm"}
    inputs = {"x": [1, 3, 6, 6], "yes": []}
    return model(nodes, inputs, ["a", "z"], weights, types={"yes": TensorProto.BOOL})


def test_surgeries_one_after_the_other(rng: np.random.Generator) -> None:
    full, half = everything(rng), np.array([3, 1])
    sliced = [Keep(name, 0, half) for name in "kstmvw"]
    norm = InsertBatchNorm("conv", *(np.ones(4, np.float32) for _ in range(4)))
    turns: list[list[Edit]] = [
        [Bypass("a", "b")],
        [Bypass("x", "a")],
        [Bypass("y", "z")],
        [FoldBatchNorm("bn")],
        [*sliced, FoldBatchNorm("bn")],
        [norm, SetAttribute("elu", "alpha", 2.0), SetAttribute("bn", "epsilon", None)],
        [CropKernel("conv", (1, 1)), ReplaceConstant("bn", 1, np.ones(4, np.float32))],
        [SetInitializer("k", floats(rng, 4, 3, 3, 3)), ReplaceConstant("conv", 2, floats(rng, 4))],
        [Bypass("n", "b"), *sliced],
    ]
    shared, made = Parts.of(full), 0
    for edits in [[], *turns, *reversed(turns), []]:
        fresh, again = apply(Parts.of(full), edits), apply(shared, edits)
        assert type(fresh) is type(again)
        if isinstance(fresh, Refusal) or isinstance(again, Refusal):
            assert fresh == again
            continue
        made += 1
        assert again.model == fresh.model
        assert again.done == fresh.done
        assert len(shared.idle) == 1
    assert made >= 18


def test_a_refusal_throws_its_graph_away(rng: np.random.Generator) -> None:
    full = everything(rng)
    shared = Parts.of(full)
    assert isinstance(apply(shared, []), Rewritten)
    refused = apply(shared, [FoldBatchNorm("bn"), Bypass("a", "nowhere")])
    assert isinstance(refused, Refusal)
    assert not shared.idle
    again = apply(shared, [])
    assert isinstance(again, Rewritten)
    assert list(again.model.graph.node) == list(full.graph.node)


def test_two_surgeries_at_once_have_two_graphs(rng: np.random.Generator) -> None:
    shared = Parts.of(everything(rng))
    first, second = Surgery(shared), Surgery(shared)
    assert first.graph is not second.graph
    first.graph.nodes.clear()
    assert len(second.close().structure.graph.node) == 6


@pytest.mark.parametrize("name", sorted(graphs.NETWORKS))
def test_many_sub_networks_of_one_graph(name: str) -> None:
    space = build(graphs.NETWORKS[name]())
    rng = np.random.default_rng(5)
    for _ in range(6):
        plan = space.plan(space.random(rng))
        fresh = apply(load(graphs.NETWORKS[name]()).parts, plan)
        assert isinstance(fresh, Rewritten)
        assert rewritten(space.graph, plan).to_bytes() == fresh.parts.to_bytes()
