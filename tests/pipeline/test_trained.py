"""How fast a network trains is found out in a few steps."""

from __future__ import annotations

from typing import Any

import pytest

from onnxnas.pipeline import trained
from onnxnas.train import TrainResult
from tests.train import tiny


@pytest.mark.parametrize(("seconds", "timed"), [(0.5, [2, 6]), (9.0, [2])])
def test_long_steps_are_timed_without_warming_up(seconds: float, timed: list[int]) -> None:
    steps: list[int] = []

    def fit(network: Any, settings: Any) -> TrainResult:
        steps.append(round(settings.epochs * 3))
        return TrainResult(steps[-1], settings.epochs, seconds, 10.0 * len(steps), {})

    rate = trained.speed(96, None, tiny.settings(), fit)  # type: ignore[arg-type]
    assert steps == timed
    assert rate == 10.0 * len(timed)
