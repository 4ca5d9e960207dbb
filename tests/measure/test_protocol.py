"""The statistics, on synthetic machines: a clock that only the models' own time moves."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from onnxnas.errors import ConfigError
from onnxnas.measure.protocol import (
    LONG,
    SHORT,
    Protocol,
    Turns,
    collect,
    distinguishable,
    median_interval,
    noise_floor,
    quantile_intervals,
    widen,
)
from onnxnas.measure.summary import Comparison, summarise
from onnxnas.types import Measurement

BRIEF = Protocol("brief", 0.02, min_turns=8, block_seconds=0.0006, warmup_seconds=0.0005, relative_width=0.0)


class Machine:
    """Drifts by 40 % over a tenth of a second, stalls now and then, and gives each session a bias of its own."""

    def __init__(self, seed: int, session_noise: float = 0.01) -> None:
        self.rng = np.random.default_rng(seed)
        self.noise = session_noise
        self.now = 0
        self.phase = self.rng.uniform(0, 2 * math.pi)
        self.random = iter(())

    def clock(self) -> int:
        return self.now

    def session(self, us: float) -> Callable[[], None]:
        us *= math.exp(self.rng.normal(0, self.noise))

        def call() -> None:
            draw = next(self.random, None)
            if draw is None:
                spikes = np.where(self.rng.random(4096) < 0.03, self.rng.uniform(2, 30, 4096), 1.0)
                self.random = iter((spikes * self.rng.lognormal(0, 0.05, 4096)).tolist())
                draw = next(self.random)
            drift = 1.2 + 0.2 * math.sin(self.phase + 2 * math.pi * self.now / 2e8)
            self.now += int(us * 1000 * drift * draw)

        return call

    def turns(self, first: Callable[[], None], second: Callable[[], None], protocol: Protocol) -> Turns:
        return collect([first, second], protocol, self.rng, clock=self.clock)


def short(machine: Machine, candidate_us: float, baseline_us: float) -> Comparison:
    kept = machine.session(baseline_us)
    ratios = [machine.turns(machine.session(baseline_us), kept, BRIEF).ratios() for _ in range(6)]
    floor = noise_floor(np.log([np.median(r) for r in ratios]))
    return summarise([machine.turns(machine.session(candidate_us), kept, BRIEF)], BRIEF, floor)


def long(machine: Machine, candidate_us: float, baseline_us: float) -> Comparison:
    rounds = [
        machine.turns(machine.session(candidate_us), machine.session(baseline_us), BRIEF) for _ in range(9)
    ]
    return summarise(rounds, BRIEF)


@pytest.mark.parametrize("measure", [short, long])
def test_a_model_against_itself_is_not_called_different(
    measure: Callable[[Machine, float, float], Comparison],
) -> None:
    repeats = 40
    claims = 0
    for seed in range(repeats):
        speedup = measure(Machine(seed), 60.0, 60.0).speedup
        claims += not speedup.low <= 1.0 <= speedup.high
    assert claims <= 0.05 * repeats


@pytest.mark.parametrize("measure", [short, long])
def test_a_true_difference_of_a_fifth_is_found(
    measure: Callable[[Machine, float, float], Comparison],
) -> None:
    for seed in range(12):
        speedup = measure(Machine(1000 + seed), 50.0, 60.0).speedup
        assert speedup.low > 1.05, seed
        assert speedup.value == pytest.approx(1.2, rel=0.05)


def test_without_the_floor_sessions_would_pass_for_differences() -> None:
    """Why 'short' is widened: turns alone are blind to what a session brings with it."""
    claims = 0
    for seed in range(20):
        machine = Machine(seed, session_noise=0.03)
        turns = machine.turns(machine.session(60), machine.session(60), BRIEF)
        speedup = summarise([turns], BRIEF).speedup
        claims += not speedup.low <= 1.0 <= speedup.high
    assert claims > 4


def test_latency_survives_spikes() -> None:
    """3 % of calls stall 2 to 30 times as long: p50 does not see them, p99 does."""
    machine = Machine(5, session_noise=0.0)
    candidate = long(machine, 60.0, 60.0).candidate
    assert 0.06 * 0.95 <= candidate.p50.value <= 0.06 * 1.4 * 1.05
    assert candidate.p50.low <= candidate.p50.value <= candidate.p50.high
    assert candidate.p99.value > 1.7 * candidate.p50.value
    assert candidate.p50.value <= candidate.p90.value <= candidate.p99.value
    assert candidate.rate.value < 1e3 / candidate.p50.value  # stalls cost throughput


def test_stops_early_when_the_interval_is_narrow() -> None:
    now = 0

    def call() -> None:
        nonlocal now
        now += 100_000

    protocol = Protocol("p", 10.0, min_turns=8, block_seconds=0.001, warmup_seconds=0.001)
    turns = collect([call, call], protocol, np.random.default_rng(0), clock=lambda: now)
    assert len(turns.blocks[0]) == len(turns.blocks[1]) == 8
    assert now < 1e9


def test_slow_models_still_get_the_least_number_of_turns() -> None:
    now = 0

    def call() -> None:
        nonlocal now
        now += 2_000_000_000

    turns = collect([call, call], SHORT, np.random.default_rng(0), clock=lambda: now)
    assert [len(block) for block in turns.blocks[0]] == [1] * SHORT.min_turns
    assert now == 2e9 * (2 * 2 + 2 * SHORT.min_turns)  # warm-up twice each; no untimed calls before blocks


def test_fast_calls_are_timed_in_groups() -> None:
    """1 us per call and a clock that ticks every 10 us: groups of 25 calls keep the mean right."""
    now = 0

    def call() -> None:
        nonlocal now
        now += 1000

    turns = collect([call], BRIEF, np.random.default_rng(0), clock=lambda: now // 10_000 * 10_000)
    pooled = np.concatenate(turns.blocks[0])
    assert pooled.mean() == pytest.approx(1000, rel=0.1)


def test_order_alternates_and_settling_comes_first() -> None:
    order: list[str] = []
    now = 0

    def make(name: str) -> Callable[[], None]:
        def call() -> None:
            nonlocal now
            now += 1_000_000
            if order[-1] == "settled":
                order.append(name)

        return call

    collect(
        [make("a"), make("b")],
        Protocol("p", 0.0, min_turns=40, block_seconds=0.002, warmup_seconds=0),
        np.random.default_rng(3),
        settle=lambda: order.append("settled"),
        clock=lambda: now,
    )
    blocks = [name for name in order if name != "settled"][2:]
    assert len(blocks) == 80
    quads = {"".join(blocks[i : i + 4]) for i in range(0, 80, 4)}
    assert quads == {"abba", "baab"}


@pytest.mark.parametrize("n", [6, 7, 8, 9, 14, 15, 40])
def test_interval_of_the_median_covers_it(n: int) -> None:
    """On a skewed distribution with known median 1: at least 95 %."""
    rng = np.random.default_rng(n)
    hits = 0
    for _ in range(2000):
        low, middle, high = median_interval(rng.lognormal(0, 0.5, n))
        assert low <= middle <= high
        hits += low <= 1 <= high
    assert 0.945 <= hits / 2000 < 1


def test_interval_needs_six_values() -> None:
    assert median_interval(np.arange(6.0)) == (0.0, 2.5, 5.0)
    assert median_interval(np.arange(9.0)) == (1.0, 4.0, 7.0)  # tables of the sign test: 96.1 %
    assert median_interval(np.arange(20.0)) == (5.0, 9.5, 14.0)  # 95.9 %
    with pytest.raises(ValueError, match="at least 6"):
        median_interval(np.arange(5.0))


def test_quantile_interval_covers_the_tail() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(60):
        blocks = [rng.exponential(1.0, 50) for _ in range(30)]
        (low, value, high), (_, middle, _) = quantile_intervals(blocks, (0.9, 0.5), resamples=100)
        assert low <= value <= high
        assert middle == np.median(np.concatenate(blocks))
        hits += low <= math.log(10) <= high
    assert 52 <= hits < 60


def test_noise_floor_and_widening() -> None:
    assert noise_floor(np.array([0.01, -0.01, 0.01])) == pytest.approx(math.expm1(3.182 * 0.01))
    assert noise_floor(np.zeros(6)) == 0.0
    low, value, high = widen((1.0, 1.0, 1.0), 0.02)
    assert (low, value, high) == (pytest.approx(1 / 1.02), 1.0, pytest.approx(1.02))
    low, _, high = widen((1 / 1.03, 1.0, 1.03), 0.04)
    assert math.log(high) == pytest.approx(math.hypot(math.log(1.03), math.log(1.04)))
    assert low == pytest.approx(1 / high)


@pytest.mark.parametrize(
    ("a", "b", "floor", "expected"),
    [
        ((1.0, 1.1, 1.2), (1.19, 1.3, 1.4), 0.0, False),
        ((1.0, 1.1, 1.2), (1.21, 1.3, 1.4), 0.0, True),
        ((1.21, 1.3, 1.4), (1.0, 1.1, 1.2), 0.0, True),
        ((1.0, 1.1, 1.2), (1.21, 1.3, 1.4), 0.2, False),
        ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0), 0.0, False),
    ],
)
def test_distinguishable(
    a: tuple[float, float, float], b: tuple[float, float, float], floor: float, expected: bool
) -> None:
    first, second = (Measurement(value, low, high, 9, "x") for low, value, high in (a, b))
    assert distinguishable(first, second, floor) is expected


def test_protocols_that_cannot_give_an_interval_are_refused() -> None:
    with pytest.raises(ConfigError, match="rounds is 3"):
        Protocol("p", 1.0, rounds=3)
    with pytest.raises(ConfigError, match="min_turns is 5"):
        Protocol("p", 1.0, min_turns=5)
    assert Protocol(**LONG.to_json()) == LONG
