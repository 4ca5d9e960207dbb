"""Strategies yield what they claim."""

from __future__ import annotations

import numpy as np
import pytest

from onnxnas.errors import ConfigError
from onnxnas.train.strategies import Progressive, get_strategy
from onnxnas.types import Subnet
from tests.train import tiny


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_sandwich() -> None:
    space = tiny.places()
    picks = get_strategy("sandwich", space, 2).subnets(0.5, rng())
    assert [role for _, role in picks] == ["max", "min", "random", "random"]
    assert picks[0][0].key() == space.maximal().key()
    assert picks[1][0].key() == space.minimal().key()
    assert space.cost(picks[1][0]).macs < space.cost(picks[2][0]).macs


def test_single_stage_varies_and_is_reproducible() -> None:
    strategy = get_strategy("single_stage", tiny.places(), 3)
    keys = [[s.key() for s, _ in strategy.subnets(0.0, rng(i))] for i in (0, 1, 0)]
    assert len(set(keys[0])) > 1
    assert keys[0] != keys[1]
    assert keys[0] == keys[2]
    assert all(role == "random" for _, role in strategy.subnets(0.0, rng()))


def test_alternating_meets_the_extremes_now_and_then() -> None:
    """A tenth of 600 draws each (within three standard deviations), the maximal before the others of a step."""
    space = tiny.places()
    steps = [get_strategy("alternating", space, 3).subnets(0.5, rng(i)) for i in range(200)]
    assert all(len(picks) == 3 for picks in steps)
    roles = [role for picks in steps for _, role in picks]
    assert abs(roles.count("max") - 60) < 22
    assert abs(roles.count("min") - 60) < 22
    assert all(picks[0][1] == "max" for picks in steps if "max" in {role for _, role in picks})
    ends = {"max": space.maximal().key(), "min": space.minimal().key()}
    assert all(s.key() == ends[role] for picks in steps for s, role in picks if role in ends)
    assert len({s.key() for picks in steps for s, role in picks if role == "random"}) > 20
    assert len(get_strategy("alternating", space, 0).subnets(0.0, rng())) == 1


def test_progressive_adds_one_kind_at_a_time() -> None:
    space = tiny.places("mbconv")
    strategy = Progressive(space, 8)
    kinds = {d.kind for d in space.dimensions}
    assert {"depth", "width"} <= kinds
    stages = [kind for kind in ("depth", "width", "kernel") if kind in kinds]
    for index in range(len(stages)):
        progress = (index + 0.5) / len(stages)
        assert strategy.elastic(progress) == set(stages[: index + 1])
        picks = [s for s, _ in strategy.subnets(progress, rng())]
        assert any(s.skip for s in picks)
        assert any(s.width for s in picks) is (index >= 1)
    assert strategy.elastic(1.0) == set(stages)


def test_fixed_is_the_maximal() -> None:
    space = tiny.places()
    assert [(s.key(), r) for s, r in get_strategy("fixed", space, 3).subnets(0.1, rng())] == [
        (space.maximal().key(), "max")
    ]


class Own:
    """A user's strategy."""

    def __init__(self, space: object, n: int) -> None:
        self.n = n

    def subnets(self, progress: float, rng: np.random.Generator) -> list[tuple[Subnet, str]]:
        return [(Subnet(), "random")] * self.n


def test_a_users_own() -> None:
    strategy = get_strategy(f"{__file__}:Own", tiny.places(), 2)
    assert len(strategy.subnets(0.0, rng())) == 2
    with pytest.raises(ConfigError, match="no method 'subnets'"):
        get_strategy(f"{__file__}:rng_factory", tiny.places(), 2)
    with pytest.raises(ConfigError, match="sandwich"):
        get_strategy("sandwhich", tiny.places(), 2)


def rng_factory(space: object, n: int) -> object:
    return object()
