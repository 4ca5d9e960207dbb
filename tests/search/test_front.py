"""Dominance, hypervolume and knee against brute force and hand-computed figures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxnas.search import (
    Frame,
    feasible,
    hypervolume,
    knee,
    most_volume,
    non_dominated,
    overlap,
    pareto,
    surely_dominated,
)
from onnxnas.types import Measurement, Objective, Subnet, Trial

QUALITY = Objective("quality", "%", maximise=True)
LATENCY = Objective("latency", "ms", maximise=False)


def trial(number: int, quality: float, latency: float, half: float | None = None) -> Trial:
    intervals = {}
    if half is not None:
        intervals["latency"] = Measurement(latency, latency - half, latency + half, 10, "ms")
    return Trial(number, Subnet(), "ok", {"quality": quality, "latency": latency}, intervals)


small_rows = st.integers(1, 3).flatmap(
    lambda m: st.lists(st.lists(st.integers(0, 4), min_size=m, max_size=m), min_size=1, max_size=12)
)


@given(small_rows)
@settings(deadline=None)
def test_non_dominated_is_what_the_definition_says(rows: list[list[int]]) -> None:
    def dominates(a: list[int], b: list[int]) -> bool:
        return all(x <= y for x, y in zip(a, b, strict=True)) and a != b

    expected = [not any(dominates(other, row) for other in rows) for row in rows]
    assert non_dominated(np.array(rows, dtype=float)).tolist() == expected


@given(st.lists(st.tuples(st.integers(80, 90), st.integers(1, 9), st.booleans()), max_size=15))
@settings(deadline=None)
def test_pareto_keeps_exactly_the_able_trials_that_nothing_beats(
    points: list[tuple[int, int, bool]],
) -> None:
    limited = (Objective("quality", "%", maximise=True, limit=83.0), LATENCY)
    trials = [
        trial(i, q, ms) if ok else Trial(i, Subnet(), "crashed", {}) for i, (q, ms, ok) in enumerate(points)
    ]
    able = [(i, q, ms) for i, (q, ms, ok) in enumerate(points) if ok and q >= 83]
    best = {
        i
        for i, q, ms in able
        if not any(q2 >= q and ms2 <= ms and (q2, ms2) != (q, ms) for _, q2, ms2 in able)
    }
    front = pareto(trials, limited)
    assert {t.number for t in front} == best
    qualities = [t.values["quality"] for t in front]
    assert qualities == sorted(qualities, reverse=True)


@pytest.mark.parametrize(("limit", "expected"), [(3.0, True), (2.999, False)])
def test_a_limit_on_what_is_minimised_is_an_upper_bound(limit: float, expected: bool) -> None:
    objective = Objective("latency", "ms", maximise=False, limit=limit)
    assert feasible(trial(0, 90, 3.0), [QUALITY, objective]) is expected


def test_hypervolume_by_hand() -> None:
    # two rectangles (3 x 1, then 1 x 2 more) in a frame of 4 x 4; (5, 0) is outside, (3, 3) adds nothing
    rows = np.array([[1.0, 3.0], [3.0, 1.0], [5.0, 0.0], [3.0, 3.0]])
    frame = Frame(ideal=(0.0, 0.0), reference=(4.0, 4.0))
    assert hypervolume(rows, frame) == pytest.approx((3 * 1 + 1 * 2) / 16)


def test_hypervolume_of_three_objectives_by_hand() -> None:
    # boxes 2x2x1 and 1x1x2 from the reference corner share 1x1x1
    rows = np.array([[0.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    frame = Frame(ideal=(0.0, 0.0, 0.0), reference=(2.0, 2.0, 2.0))
    assert hypervolume(rows, frame) == pytest.approx((4 + 2 - 1) / 8)


def test_hypervolume_does_not_change_with_units() -> None:
    rows = np.array([[1.0, 3.0], [2.5, 1.0]])
    frame = Frame(ideal=(0.0, 1.0), reference=(4.0, 4.0))
    scaled = Frame(ideal=(0.0, 1000.0), reference=(4.0, 4000.0))
    assert hypervolume(rows * [1, 1000], scaled) == pytest.approx(hypervolume(rows, frame))


def test_hypervolume_of_nothing_is_zero() -> None:
    assert hypervolume(np.zeros((0, 2)), Frame((0.0, 0.0), (1.0, 1.0))) == 0.0


@given(small_rows, st.integers(1, 6), st.integers(0, 4))
@settings(deadline=None)
def test_most_volume_takes_what_adds_most_each_time(points: list[list[int]], count: int, held: int) -> None:
    """By looking at all that are left, every time; of equal ones it is the first."""
    rows = np.array(points, dtype=float)
    m = rows.shape[1]
    frame = Frame((0.0,) * m, (4.5,) * m)
    start, rows = rows[:held], rows[held:]
    taken = most_volume(rows, count, frame, start if held else None)
    assert len(taken) == len(set(taken)) == min(count, len(rows))
    for place, chosen in enumerate(taken):
        base = np.concatenate([start, rows[taken[:place]]])
        left = [i for i in range(len(rows)) if i not in taken[:place]]
        added = {i: round(hypervolume(np.vstack([base, rows[i]]), frame), 9) for i in left}
        assert chosen == max(left, key=lambda i: (added[i], -i))


def test_frame_is_the_box_around_successes_and_never_flat() -> None:
    trials = [trial(0, 90, 3.0), trial(1, 80, 3.0), Trial(2, Subnet(), "oom", {})]
    assert Frame.of(trials, [QUALITY, LATENCY]) == Frame(ideal=(-90.0, 3.0), reference=(-80.0, 4.0))
    assert Frame.of(trials[2:], [QUALITY, LATENCY]) is None


def test_knee_is_where_the_front_bends_most() -> None:
    front = [trial(0, 92.0, 10.0), trial(1, 91.5, 4.0), trial(2, 88.0, 3.0), trial(3, 70.0, 2.0)]
    # scaled sums: 1.0, 0.023 + 0.25, 0.182 + 0.125, 1.0
    assert knee(front, [QUALITY, LATENCY]).number == 1
    with pytest.raises(ValueError, match="without members"):
        knee([], [QUALITY, LATENCY])


def test_trials_whose_intervals_meet_are_not_told_apart() -> None:
    a, b, c = trial(0, 90, 5.0, 0.2), trial(1, 90, 5.3, 0.2), trial(2, 90, 6.0, 0.2)
    assert overlap(a, b, LATENCY)
    assert not overlap(b, c, LATENCY)
    assert overlap(a, c, QUALITY)
    assert not overlap(a, trial(3, 90, 5.21), LATENCY)
    assert not surely_dominated(b, [a, b], [QUALITY, LATENCY])
    assert surely_dominated(c, [a, b, c], [QUALITY, LATENCY])
