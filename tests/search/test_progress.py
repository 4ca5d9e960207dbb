"""Figures that a progress bar shows, on trials made by hand."""

from __future__ import annotations

import pytest

from onnxnas.search import ProgressMeter, SearchSettings
from onnxnas.types import Objective, Subnet, Trial

OBJECTIVES = (
    Objective("quality", "%", maximise=True, limit=80.0),
    Objective("latency", "ms", maximise=False),
)


def trial(number: int, quality: float, latency: float) -> Trial:
    return Trial(number, Subnet(), "ok", {"quality": quality, "latency": latency}, seconds=2.0)


def test_front_best_and_hypervolume() -> None:
    meter = ProgressMeter(OBJECTIVES, SearchSettings(population=4, max_trials=10))
    first = [trial(0, 90, 10.0), trial(1, 70, 2.0), Trial(2, Subnet(), "oom", {})]
    progress = [meter.record(t) for t in first]
    assert [p.front for p in progress] == [1, 1, 1]  # trial 1 is under the limit
    assert progress[-1].hypervolume is None
    assert progress[-1].failed == 1

    # the first generation ends: the box is quality 70 .. 90, latency 2 .. 10
    four = meter.record(trial(3, 85, 4.0))
    assert four.front == 2
    assert four.best is not None
    assert four.best.number == 3  # least latency within the limit: the first objective without one
    assert four.hypervolume == pytest.approx(0.75 * 0.75)
    # beyond the box counts by the same scale; (85, 4) is beaten
    five = meter.record(trial(4, 85, 1.0))
    assert five.front == 2
    assert five.hypervolume == pytest.approx(0.75 * 9 / 8)
    assert five.eta is not None
    assert five.eta > 0
    assert five.trials_per_second > 0


def test_replayed_trials_count_for_everything_but_speed() -> None:
    settings = SearchSettings(population=4, max_trials=10)
    straight, resumed = ProgressMeter(OBJECTIVES, settings), ProgressMeter(OBJECTIVES, settings)
    trials = [trial(i, 80 + i, 1.0 + (i * 7 % 5)) for i in range(6)]
    for t in trials[:5]:
        straight.record(t)
        resumed.replay(t)
    a, b = straight.record(trials[5]), resumed.record(trials[5])
    assert (a.trials, a.front, a.hypervolume, a.best) == (b.trials, b.front, b.hypervolume, b.best)
    assert resumed.seconds >= 10.0 > straight.seconds


def test_eta_is_what_ends_first() -> None:
    meter = ProgressMeter(OBJECTIVES, SearchSettings(population=4, max_trials=10**9, max_seconds=100.0))
    meter.replay(trial(0, 90, 1.0))
    progress = meter.record(trial(1, 90, 1.0))
    assert progress.eta is not None
    assert 60.0 < progress.eta <= 98.0
