"""How two models are compared on a machine that is never quiet.

The candidate and the baseline take turns: a short *block* of back-to-back inferences of one, then of
the other, in an order drawn ABBA or BAAB. Whatever drifts slowly (frequency, temperature, a neighbour)
meets both alike and leaves the *ratio of the two blocks' medians*, one number per turn. The speed-up is
the median over turns; its interval comes from order statistics and so needs no distribution: for n
turns the number below the true median is Binomial(n, 1/2).

One thing turns cannot see: the same model loaded twice differs by a percent or so for as long as both
sessions live (where their memory happens to lie). Protocol 'long' therefore loads both models afresh in
every round and takes its interval over rounds. Protocol 'short' keeps one session of each and widens
its interval by the *noise floor*, measured beforehand by loading the baseline several times.

Source: Kalibera & Jones, "Rigorous benchmarking in reasonable time" (ISMM 2013): repeat at the highest
level that varies.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxnas.errors import ConfigError
from onnxnas.types import Measurement

Floats = NDArray[np.float64]
Call = Callable[[], object]
Clock = Callable[[], int]

MIN_TURNS = 6  # fewer observations have no distribution-free 95 % interval of the median
_TIMER_FREE_NS = 25_000.0  # a timing sample is at least this long, so that reading the clock is < 1 % of it
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)  # 97.5 %, 1 .. 10 d.o.f.


@dataclass(frozen=True)
class Protocol:
    """How long and how often. `rounds` 1 keeps the sessions; 6 or more load both models in every round."""

    name: str
    seconds: float
    """timed seconds to spend at most, both models together, beyond the least number of turns"""
    rounds: int = 1
    min_turns: int = 8
    block_seconds: float = 0.004
    warmup_seconds: float = 0.04
    relative_width: float = 0.004
    """stop early once the interval of the ratio is within this, relatively, on both sides"""

    def __post_init__(self) -> None:
        if self.rounds != 1 and self.rounds < MIN_TURNS:
            raise ConfigError(
                f"protocol {self.name!r}: rounds is {self.rounds}; expected 1 or at least {MIN_TURNS}"
            )
        if self.rounds == 1 and self.min_turns < MIN_TURNS:
            raise ConfigError(
                f"protocol {self.name!r}: min_turns is {self.min_turns}; expected at least {MIN_TURNS}"
            )

    def to_json(self) -> dict[str, Any]:
        """The inverse of `Protocol(**body)`."""
        return asdict(self)


SHORT = Protocol("short", seconds=0.7)
LONG = Protocol("long", seconds=7.0, rounds=9, min_turns=4, relative_width=0.0)
PROTOCOLS = {"short": SHORT, "long": LONG}


@dataclass(frozen=True)
class Turns:
    """What was timed: per contender a list of blocks, each an array of nanoseconds per inference."""

    blocks: tuple[list[Floats], ...]

    def medians(self, contender: int) -> Floats:
        """Of every block, in nanoseconds: `turns`."""
        return np.array([np.median(block) for block in self.blocks[contender]])

    def rates(self, contender: int) -> Floats:
        """Inferences per second of every block, stalls included: `turns`."""
        return np.array([1e9 / block.mean() for block in self.blocks[contender]])

    def ratios(self) -> Floats:
        """Time of the last contender (the baseline) over that of the first, per turn: `turns`."""
        return self.medians(len(self.blocks) - 1) / self.medians(0)


def collect(
    calls: Sequence[Call],
    protocol: Protocol,
    rng: np.random.Generator,
    *,
    seconds: float | None = None,
    settle: Callable[[], None] = lambda: None,
    clock: Clock = time.perf_counter_ns,
) -> Turns:
    """Let `calls` take turns until the interval is narrow or `seconds` (the protocol's) are over.

    `settle` is called before each block; it waits until what the other contender left running has
    stopped. Each block starts with untimed calls, which bring the contender's memory into the caches.
    """
    budget = (protocol.seconds if seconds is None else seconds) * 1e9
    typical = [_warm_up(call, protocol.warmup_seconds * 1e9, settle, clock) for call in calls]
    inner = [max(1, math.ceil(_TIMER_FREE_NS / max(ns, 1.0))) for ns in typical]
    block_ns = protocol.block_seconds * 1e9
    turns = Turns(tuple([] for _ in calls))
    order = list(range(len(calls)))
    start, check_at, done = clock(), protocol.min_turns, 0
    while True:
        order = order[::-1] if done % 2 else [int(i) for i in rng.permutation(len(calls))]
        for i in order:
            before = clock()
            settle()
            # where settling is slow (spinning thread pools), make the block worth the wait
            length = max(block_ns, 0.7 * (clock() - before))
            if typical[i] < length:
                _repeat(calls[i], length / 8, clock)
            turns.blocks[i].append(_block(calls[i], inner[i], length, clock))
        done += 1
        if done < protocol.min_turns:
            continue
        if clock() - start >= budget:
            return turns
        if done >= check_at:
            check_at = math.ceil(check_at * 1.5)
            if len(calls) > 1 and done >= MIN_TURNS and _narrow(turns.ratios(), protocol.relative_width):
                return turns


def _warm_up(call: Call, ns: float, settle: Callable[[], None], clock: Clock) -> float:
    settle()
    times: list[int] = []
    start = previous = clock()
    while len(times) < 2 or previous - start < ns:
        call()
        now = clock()
        times.append(now - previous)
        previous = now
    return float(np.median(times[len(times) // 2 :]))


def _repeat(call: Call, ns: float, clock: Clock) -> None:
    start = clock()
    call()
    while clock() - start < ns:
        call()


def _block(call: Call, inner: int, ns: float, clock: Clock) -> Floats:
    times: list[float] = []
    start = previous = clock()
    while True:
        for _ in range(inner):
            call()
        now = clock()
        times.append((now - previous) / inner)
        previous = now
        if now - start >= ns:
            block: Floats = np.maximum(np.array(times), 1.0)
            return block


def _narrow(ratios: Floats, relative: float) -> bool:
    low, middle, high = median_interval(ratios)
    return bool(high <= middle * (1 + relative) and low >= middle / (1 + relative))


def median_interval(values: Floats, level: float = 0.95) -> tuple[float, float, float]:
    """(low, median, high): two order statistics that hold the true median with at least `level`; n >= 6.

    Of n values, k + 1 or more lie below the median, and as many above, with probability
    1 - 2 P(Binomial(n, 1/2) <= k). Raises ValueError for fewer values.
    """
    n = len(values)
    if n < MIN_TURNS:
        raise ValueError(f"an interval of the median needs at least {MIN_TURNS} values, got {n}")
    ordered = np.sort(values)
    tail, k = 0.5**n, 0
    while 1 - 2 * (tail + math.comb(n, k + 1) * 0.5**n) >= level:
        k += 1
        tail += math.comb(n, k) * 0.5**n
    return float(ordered[k]), float(np.median(ordered)), float(ordered[n - 1 - k])


def quantile_intervals(
    blocks: Sequence[Floats], quantiles: Sequence[float], *, resamples: int = 200, seed: int = 0
) -> list[tuple[float, float, float]]:
    """(low, quantile, high) for each of `quantiles`: 95 % intervals by resampling whole blocks.

    Blocks, since neighbours in time are alike. A resample is a weight per block, so that the pooled
    values are sorted once only.
    """
    pooled = np.concatenate(blocks)
    owner = np.repeat(np.arange(len(blocks)), [len(block) for block in blocks])
    order = np.argsort(pooled, kind="stable")
    ordered, owner = pooled[order], owner[order]
    rng = np.random.default_rng(seed)
    drawn = np.empty((resamples, len(quantiles)))
    for i in range(resamples):
        weights = np.bincount(rng.integers(len(blocks), size=len(blocks)), minlength=len(blocks))
        below = np.cumsum(weights[owner])
        drawn[i] = ordered[np.searchsorted(below, np.asarray(quantiles) * below[-1])]
    intervals = []
    for q, column in zip(quantiles, drawn.T, strict=True):
        value = float(np.quantile(pooled, q))
        low, high = np.quantile(column, [0.025, 0.975])
        intervals.append((min(float(low), value), value, max(float(high), value)))
    return intervals


def noise_floor(log_ratios: Floats) -> float:
    """The relative difference that two sessions of one model can show, at 95 %; of n >= 3 repeats.

    `log_ratios` are logarithms of the ratios seen between the kept baseline session and others of the
    same model; their true value is 0. 0.02 means that 2 % is nothing.
    """
    n = len(log_ratios)
    if n < 3:
        raise ValueError(f"a noise floor needs at least 3 repeats, got {n}")
    student = _STUDENT[n - 1] if n <= len(_STUDENT) else 2.2
    return math.expm1(student * math.sqrt(float(np.mean(np.square(log_ratios)))))


def widen(interval: tuple[float, float, float], floor: float) -> tuple[float, float, float]:
    """Add a relative uncertainty, independent of the interval's own, to both its sides (in logarithms)."""
    low, middle, high = interval
    extra = math.log1p(floor)
    up = math.exp(math.hypot(math.log(max(high / middle, 1.0)), extra))
    down = math.exp(math.hypot(math.log(max(middle / low, 1.0)), extra))
    return middle / down, middle, middle * up


def measurement(interval: tuple[float, float, float], n: int, unit: str, protocol: str) -> Measurement:
    """(low, value, high) as a `Measurement`."""
    low, value, high = interval
    return Measurement(value, min(low, value), max(high, value), n, unit, protocol)


def distinguishable(a: Measurement, b: Measurement, floor: float = 0.0) -> bool:
    """Whether two figures may be called different: disjoint intervals, and further apart than `floor` (relative).

    For two candidates give their `speedup`s, not their latencies: what the machine did between the two
    measurements cancels there.
    """
    if a.low <= b.high and b.low <= a.high:
        return False
    return abs(a.value - b.value) > floor * min(abs(a.value), abs(b.value))
