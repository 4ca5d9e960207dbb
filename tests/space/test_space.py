"""Genotypes, repair, effective sub-networks, JSON."""

from __future__ import annotations

import importlib
import json

import numpy as np
import onnx
import pytest

import rewriters
from onnxnas import space as spaces
from onnxnas.analysis import analyse
from onnxnas.errors import ConfigError, RunError
from onnxnas.graph import load, rewrite
from onnxnas.testing import graphs
from onnxnas.types import Subnet


@pytest.fixture(scope="module")
def space() -> spaces.SearchSpace:
    return spaces.build(analyse(load(graphs.resnet())))


def test_genotypes_round_trip(space: spaces.SearchSpace) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        subnet = space.random(rng)
        assert space.decode(space.encode(subnet)) == subnet
    assert space.maximal() == Subnet()
    assert space.decode(space.encode(Subnet())) == Subnet()
    assert space.encode(space.minimal()).tolist() == [len(d.choices) - 1 for d in space.dimensions]


def test_the_size_counts_all_genotypes(space: spaces.SearchSpace) -> None:
    assert space.size_log10 == pytest.approx(
        np.log10(float(np.prod([len(d.choices) for d in space.dimensions])))
    )


def test_random_draws_only_what_is_elastic(space: spaces.SearchSpace) -> None:
    rng = np.random.default_rng(1)
    drawn = [space.random(rng, {"depth"}) for _ in range(30)]
    assert all(not s.width and not s.kernel for s in drawn)
    assert {len(s.skip) > 0 for s in drawn} == {True, False}


def test_widths_inside_skipped_blocks_do_not_count(space: spaces.SearchSpace) -> None:
    block = space.blocks[0]
    inner = next(g for g in space.groups if {*g.producers, *g.consumers} <= set(block.nodes))
    shared = next(g for g in space.groups if not {*g.producers, *g.consumers} <= set(block.nodes))
    subnet = Subnet(frozenset({block.id}), {inner.id: inner.choices[-1], shared.id: shared.choices[-1]})
    assert space.effective(subnet) == Subnet(frozenset({block.id}), {shared.id: shared.choices[-1]})
    small, same = (rewrite(space.graph, space.plan(s)) for s in (subnet, space.effective(subnet)))
    assert small.SerializeToString() == same.SerializeToString()


def test_unknown_names_and_values_are_refused(space: spaces.SearchSpace) -> None:
    group = space.groups[0]
    for subnet in (
        Subnet(frozenset({"b99"})),
        Subnet(width={group.id: group.size + 1}),
        Subnet(kernel={"g0": (3, 3)}),
        Subnet(width={"b0": 1}),
    ):
        with pytest.raises(ConfigError) as caught:
            space.encode(subnet)
        assert "sub-network" in str(caught.value)
    with pytest.raises(ConfigError, match="use one of"):
        space.validate(Subnet(width={group.id: 1}))


def test_repair_rounds_up_to_what_exists(space: spaces.SearchSpace) -> None:
    group = space.groups[0]
    below = group.choices[1] - 1
    wanted = min(c for c in group.choices if c >= below)
    repaired = space.repair(Subnet(frozenset({"b0", "b99"}), {group.id: below, "g99": 3}))
    assert repaired == Subnet(frozenset({"b0"}), {group.id: wanted})


def test_json_round_trip(space: spaces.SearchSpace) -> None:
    body = json.loads(json.dumps(space.to_json()))
    again = spaces.from_json(space.graph, body)
    assert again.digest == space.digest
    subnet = space.random(np.random.default_rng(2))
    assert again.cost(subnet) == space.cost(subnet)
    body["groups"][0]["size"] += 1
    with pytest.raises(RunError):
        spaces.from_json(space.graph, body)


def test_a_space_can_be_limited() -> None:
    analysis = analyse(load(graphs.mbconv()))
    only_depth = spaces.build(analysis, elastic={"depth"})
    assert {d.kind for d in only_depth.dimensions} == {"depth"}
    whole = spaces.build(analysis)
    group = whole.groups[0]
    less = whole.restricted({group.id: {group.choices[-1]}})
    assert less.groups[0].choices == (group.size, group.choices[-1])
    with pytest.raises(ConfigError):
        spaces.build(analysis, elastic={"height"})


def _folded(model: onnx.ModelProto) -> onnx.ModelProto:
    result = rewriters.fold_all(model)
    assert isinstance(result, rewriters.Rewritten)
    return result.model


def test_importance_does_not_depend_on_folding() -> None:
    model = graphs.resnet()
    unfolded = analyse(load(model))
    folded = analyse(load(_folded(unfolded.graph.model)))
    assert any(n.op_type == "BatchNormalization" for n in unfolded.graph.nodes)
    assert not any(n.op_type == "BatchNormalization" for n in folded.graph.nodes)
    for a, b in zip(unfolded.groups, folded.groups, strict=True):
        first, second = spaces.build(unfolded).order[a.id], spaces.build(folded).order[b.id]
        assert first.tolist() == second.tolist()


@pytest.mark.parametrize(("rule", "power"), [("l1", 1), ("l2", 2)])
@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_importance_is_the_sum_over_all_weights(name: str, rule: str, power: int) -> None:
    """BatchNormalization folded before, each weight at once, where the code takes a few rows at a time."""
    module = importlib.import_module("onnxnas.space.importance")
    model = _folded(load(graphs.NETWORKS[name]()).model)
    analysis = analyse(load(model))
    wanted = np.zeros(analysis.labels.count)
    for node in analysis.graph.nodes:
        if node.op_type not in ("Conv", "Gemm", "MatMul"):
            continue
        for (tensor, axis), units in analysis.labels.axes.items():
            if tensor in node.inputs[:2] and tensor in analysis.graph.initializers:
                weight = np.abs(analysis.graph.initializers[tensor].astype(np.float64)) ** power
                part = np.moveaxis(weight, axis, 0).reshape(len(units), -1).sum(1)
                for unit, share in zip(units, part / part.mean(), strict=True):
                    wanted[unit] += share if unit >= 0 else 0
    for rows in (7, 1 << 16):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_ELEMENTS", rows)
            np.testing.assert_allclose(module.importance(analysis, rule), wanted, rtol=1e-9)
