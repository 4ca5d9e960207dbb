"""From timed turns to the figures that are reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxnas.measure.protocol import (
    Floats,
    Protocol,
    Turns,
    measurement,
    median_interval,
    quantile_intervals,
    widen,
)
from onnxnas.types import Measurement

Interval = tuple[float, float, float]


@dataclass(frozen=True)
class Figures:
    """Of one contender: latencies in ms per inference, `rate` in inferences per second."""

    p50: Measurement
    p90: Measurement
    p99: Measurement
    rate: Measurement


@dataclass(frozen=True)
class Comparison:
    """Candidate against baseline; `speedup` is baseline time over candidate time."""

    candidate: Figures
    baseline: Figures
    speedup: Measurement


def summarise(rounds: Sequence[Turns], protocol: Protocol, floor: float = 0.0) -> Comparison:
    """The figures of all rounds. With one round, intervals run over its turns and are widened by `floor`.

    With several, sessions were fresh in each, so that intervals run over rounds and hold that noise
    already; `floor` is not used.
    """
    figures = [_figures(rounds, contender, protocol, floor) for contender in (0, 1)]
    ratio = _interval([turns.ratios() for turns in rounds], floor)
    count = sum(len(turns.blocks[0]) for turns in rounds)
    return Comparison(figures[0], figures[1], measurement(ratio, count, "x", protocol.name))


def _figures(rounds: Sequence[Turns], contender: int, protocol: Protocol, floor: float) -> Figures:
    blocks = [block / 1e6 for turns in rounds for block in turns.blocks[contender]]
    n = sum(len(block) for block in blocks)
    p50 = _interval([turns.medians(contender) / 1e6 for turns in rounds], floor)
    rate = _interval([turns.rates(contender) for turns in rounds], floor)
    tails: list[Interval] = []
    least = p50
    for tail in quantile_intervals(blocks, (0.9, 0.99)):
        tail = widen(tail, floor) if len(rounds) == 1 else tail
        least = (max(tail[0], least[0]), max(tail[1], least[1]), max(tail[2], least[2]))
        tails.append(least)
    return Figures(
        measurement(p50, n, "ms", protocol.name),
        measurement(tails[0], n, "ms", protocol.name),
        measurement(tails[1], n, "ms", protocol.name),
        measurement(rate, n, "1/s", protocol.name),
    )


def _interval(rounds: Sequence[Floats], floor: float) -> Interval:
    if len(rounds) == 1:
        return widen(median_interval(rounds[0]), floor)
    return median_interval(np.array([np.median(values) for values in rounds]))
