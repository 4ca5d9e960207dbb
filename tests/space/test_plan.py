"""Rewritten sub-networks against the full network with zeros (`testing.reference`)."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxnas import space as spaces
from onnxnas.analysis import analyse
from onnxnas.graph import example_inputs, load, rewrite
from onnxnas.testing import graphs
from onnxnas.testing.operators import counted, worst
from onnxnas.testing.operators import run_onnx as run
from onnxnas.testing.reference import masked_model
from onnxnas.types import Subnet


def build(model: onnx.ModelProto) -> spaces.SearchSpace:
    return spaces.build(analyse(load(model)))


@pytest.mark.parametrize("name", sorted(graphs.NETWORKS))
def test_sub_networks_equal_the_network_with_zeros(name: str) -> None:
    space = build(graphs.NETWORKS[name]())
    feeds = example_inputs(space.graph, seed=1, batch=3)
    rng = np.random.default_rng(0)
    widths_only = space.random(rng, {"width"})
    for subnet in (space.minimal(), widths_only, *(space.random(rng) for _ in range(4))):
        small = rewrite(space.graph, space.plan(subnet))
        onnx.checker.check_model(small)
        assert worst(run(small, feeds), run(masked_model(space, subnet), feeds)) < 1e-4, subnet.key()


@settings(max_examples=12, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000))
def test_random_networks_and_sub_networks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    space = build(graphs.random_cnn(rng, blocks=int(rng.integers(1, 5))))
    feeds = example_inputs(space.graph, seed=seed, batch=2)
    for subnet in (space.minimal(), space.random(rng)):
        small = rewrite(space.graph, space.plan(subnet))
        assert worst(run(small, feeds), run(masked_model(space, subnet), feeds)) < 1e-4, subnet.key()


@pytest.mark.parametrize("name", sorted(graphs.NETWORKS))
def test_the_maximal_sub_network_is_the_original(name: str) -> None:
    model = graphs.NETWORKS[name]()
    space = build(model)
    feeds = example_inputs(space.graph, seed=2, batch=2)
    assert space.plan(Subnet()) == ()
    assert worst(run(rewrite(space.graph, ()), feeds), run(model, feeds)) < 1e-5


@pytest.mark.parametrize("name", sorted(graphs.NETWORKS))
def test_sorting_changes_nothing(name: str) -> None:
    model = graphs.NETWORKS[name]()
    analysis = analyse(load(model))
    rng = np.random.default_rng(3)
    order = {g.id: rng.permutation(g.size) for g in analysis.groups}
    edits = spaces.sorting_edits(analysis, order)
    assert bool(edits) == any((o != np.arange(o.size)).any() for o in order.values())
    feeds = example_inputs(analysis.graph, seed=4, batch=2)
    assert worst(run(rewrite(analysis.graph, edits), feeds), run(model, feeds)) < 1e-5


def test_sorted_weights_make_a_width_a_prefix() -> None:
    model = graphs.resnet()
    analysis = analyse(load(model))
    by_l1 = spaces.build(analysis)
    resorted = analyse(load(rewrite(analysis.graph, spaces.sorting_edits(analysis, dict(by_l1.order)))))
    prefix = spaces.build(resorted, order="none")
    feeds = example_inputs(analysis.graph, seed=5, batch=2)
    subnet = by_l1.minimal()
    a = run(rewrite(analysis.graph, by_l1.plan(subnet)), feeds)
    b = run(rewrite(resorted.graph, prefix.plan(subnet)), feeds)
    assert worst(a, b) < 1e-5


@pytest.mark.parametrize("name", sorted(graphs.NETWORKS))
def test_claimed_cost_is_the_counted_one(name: str) -> None:
    space = build(graphs.NETWORKS[name]())
    feeds = example_inputs(space.graph, seed=6, batch=1)
    rng = np.random.default_rng(7)
    for subnet in (Subnet(), space.minimal(), space.random(rng), space.random(rng)):
        cost = space.cost(subnet)
        assert (cost.macs, cost.params) == counted(rewrite(space.graph, space.plan(subnet)), feeds)


@pytest.mark.parametrize("name", sorted(graphs.NETWORKS))
def test_what_a_block_costs_is_what_skipping_it_saves(name: str) -> None:
    space = build(graphs.NETWORKS[name]())
    whole, costs = space.cost(Subnet()), space.block_costs()
    assert costs.keys() == {block.id for block in space.blocks}
    for block, cost in costs.items():
        without = space.cost(Subnet(skip=frozenset({block})))
        assert (cost.macs, cost.params) == (whole.macs - without.macs, whole.params - without.params)


def test_weights_that_two_blocks_share_belong_to_neither() -> None:
    model = graphs.resnet(blocks=(3,), channels=(8,))
    first, second = (next(n for n in model.graph.node if n.name == f"/layer1/{i}/conv1/Conv") for i in (1, 2))
    second.input[1] = first.input[1]
    space = build(model)
    assert len(space.blocks) == 3
    for block, cost in space.block_costs().items():
        saved = space.cost(Subnet()).params - space.cost(Subnet(skip=frozenset({block}))).params
        assert cost.params == saved
