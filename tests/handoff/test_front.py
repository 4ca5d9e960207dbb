"""Fronts and hypervolumes against their definitions, by brute force and by grid."""

from __future__ import annotations

import numpy as np
import pytest

from onnxnas.handoff.front import front, hypervolumes


def dominates(a: tuple[float, float], b: tuple[float, float], larger: tuple[bool, bool]) -> bool:
    gain = [(x - y) * (1 if big else -1) for x, y, big in zip(a, b, larger, strict=True)]
    return all(g >= 0 for g in gain) and any(g > 0 for g in gain)


@pytest.mark.parametrize("larger", [(True, False), (True, True), (False, False)])
def test_front_is_what_nothing_dominates(rng: np.random.Generator, larger: tuple[bool, bool]) -> None:
    points = [(float(a), float(b)) for a, b in rng.integers(0, 8, (40, 2))]  # with many ties
    found = {points[i] for i in front(points, larger)}
    assert found == {p for p in points if not any(dominates(q, p, larger) for q in points)}
    assert len(front(points, larger)) == len(found)


def test_hypervolume_is_the_covered_area(rng: np.random.Generator) -> None:
    points = [
        (float(q), float(c)) for q, c in zip(rng.uniform(60, 90, 25), rng.uniform(1, 3, 25), strict=True)
    ]
    points += points[:3]
    volumes = hypervolumes(points, (True, False))
    quality, cost = np.array(points).T
    good = (quality - quality.min()) / np.ptp(quality)
    cheap = (cost.max() - cost) / np.ptp(cost)
    ticks = (np.arange(400) + 0.5) / 400
    covered = np.zeros((400, 400), bool)
    for i in range(len(points)):
        covered |= (ticks[:, None] < good[i]) & (ticks[None, :] < cheap[i])
        assert volumes[i] == pytest.approx(100 * covered.mean(), abs=0.6)
    assert volumes == sorted(volumes)


def test_equal_values_do_not_divide_by_zero() -> None:
    assert hypervolumes([(1.0, 2.0), (1.0, 2.0)], (True, False)) == [0.0, 0.0]
