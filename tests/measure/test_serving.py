from __future__ import annotations

import time

import numpy as np
import pytest

from onnxnas.measure.serving import highest_rate, serve, simulate


def queue_by_hand(service: np.ndarray, gaps: np.ndarray) -> list[float]:
    free, arrival, latencies = 0.0, 0.0, []
    for cost, gap in zip(service, gaps, strict=True):
        arrival += gap
        begin = max(arrival, free)
        free = begin + cost
        latencies.append(free - arrival)
    return latencies


@pytest.mark.parametrize("load", [0.1, 0.9, 3.0])
def test_recursion_equals_a_queue_played_by_hand(load: float) -> None:
    rng = np.random.default_rng(int(load * 10))
    service, gaps = rng.lognormal(0, 0.5, 500), rng.exponential(1.2 / load, 500)
    np.testing.assert_allclose(simulate(service, gaps), queue_by_hand(service, gaps), rtol=1e-9)


def test_highest_rate_is_just_within_the_bound() -> None:
    rng = np.random.default_rng(0)
    service, gaps = rng.lognormal(-7, 0.1, 5000), rng.exponential(1.0, 5000)
    for bound in (0.002, 0.005, 0.02):
        rate = highest_rate(service, bound, gaps)
        assert 0 < rate < 1 / service.mean()
        assert np.quantile(queue_by_hand(service, gaps / rate), 0.99) <= bound
        assert np.quantile(queue_by_hand(service, gaps / (rate * 1.05)), 0.99) > bound
    assert highest_rate(service, 0.02, gaps) > highest_rate(service, 0.002, gaps)
    assert highest_rate(service, float(service.min()), gaps) == 0.0


def test_waiting_counts_and_arrivals_do_not_wait() -> None:
    """All at once: the last query waits for all before it."""

    def call() -> None:
        end = time.perf_counter() + 0.001
        while time.perf_counter() < end:
            pass

    latency, service = serve(call, None, 10.0, 20, np.random.default_rng(0))
    assert len(latency) == len(service) == 20
    assert service.min() >= 0.001
    assert np.all(np.diff(latency) >= 0.001)
    assert latency[-1] >= service.sum()
    spread, _ = serve(call, 200.0, 10.0, 20, np.random.default_rng(0))
    assert spread.min() >= 0.001
    short, _ = serve(call, None, 0.005, 10_000, np.random.default_rng(0))
    assert len(short) < 1000
