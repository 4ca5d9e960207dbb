"""Sizes of the sub-networks that training draws."""

from __future__ import annotations

import numpy as np
import pytest

from onnxnas import space as spaces
from onnxnas.analysis import analyse
from onnxnas.graph import load
from onnxnas.testing import graphs
from onnxnas.train.sampling import SizedSampler

FLOOR = 0.3


@pytest.fixture(scope="module")
def space() -> spaces.SearchSpace:
    return spaces.build(analyse(load(graphs.resnet(blocks=(3, 3), channels=(16, 32)))))


def shares(space: spaces.SearchSpace, drawn: list) -> np.ndarray:
    whole = space.cost(space.maximal()).macs
    return np.array([space.cost(s).macs / whole for s in drawn])


def test_sizes_are_spread_over_the_range(space: spaces.SearchSpace) -> None:
    rng = np.random.default_rng(0)
    sampler = SizedSampler(space, FLOOR)
    sized = shares(space, [sampler.random(rng) for _ in range(200)])
    even = shares(space, [space.random(rng) for _ in range(200)])
    assert (even < FLOOR).mean() > 0.5  # what drawing every dimension evenly gives
    assert (sized < FLOOR - 0.05).mean() < 0.05
    counts, _ = np.histogram(sized, bins=4, range=(FLOOR, 1.0))
    assert counts.min() > 200 / 4 / 3


def test_the_smallest_is_even_and_above_the_floor(space: spaces.SearchSpace) -> None:
    sampler = SizedSampler(space, FLOOR)
    smallest = sampler.minimal()
    assert FLOOR <= shares(space, [smallest])[0] < 0.6
    assert {g.choices.index(smallest.width.get(g.id, g.size)) for g in space.groups} in [
        {i} for i in range(8)
    ]


def test_only_the_asked_kinds_vary(space: spaces.SearchSpace) -> None:
    rng = np.random.default_rng(1)
    drawn = [SizedSampler(space, FLOOR).random(rng, frozenset({"depth"})) for _ in range(20)]
    assert all(not s.width for s in drawn)
    assert any(s.skip for s in drawn)


def test_draws_are_repeatable(space: spaces.SearchSpace) -> None:
    a, b = (SizedSampler(space, FLOOR).random(np.random.default_rng(5)).key() for _ in range(2))
    assert a == b
