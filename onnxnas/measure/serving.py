"""The server scenario: queries arrive at random and wait their turn.

Arrivals are a Poisson process, independent of how the server fares (an open loop: a slow answer does
not slow the questions down). One server, first come first served. A query's latency runs from its
scheduled arrival, so that waiting counts. Source: MLPerf Inference (Reddi et al., ISCA 2020), server
scenario; the recursion is Lindley's (1952).
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from onnxnas.measure.protocol import Floats

_SPIN_SECONDS = 0.0003  # sleeping is late by about 0.1 ms; the last stretch is waited actively


def serve(
    call: Callable[[], object], rate: float | None, seconds: float, queries: int, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """(latency, service time) of each query in seconds, arriving at `rate` per second; `None`: all at once.

    Ends after `queries` queries or when `seconds` are over, whichever comes first; at least one query.
    """
    gaps = rng.exponential(1.0 / rate, queries) if rate else np.zeros(queries)
    arrivals = np.cumsum(gaps).tolist()
    latency, service = [], []
    for _ in range(3):
        call()
    start = time.perf_counter()
    for arrival in arrivals:
        due = start + arrival
        begin = time.perf_counter()
        if begin < due:
            if due - begin > _SPIN_SECONDS:
                time.sleep(due - begin - _SPIN_SECONDS)
            while (begin := time.perf_counter()) < due:
                pass
        call()
        end = time.perf_counter()
        latency.append(end - due)
        service.append(end - begin)
        if end - start > seconds:
            break
    return np.array(latency), np.array(service)


def simulate(service: Floats, gaps: Floats) -> Floats:
    """Latencies of a first-come-first-served queue: service times and gaps before arrivals, both n, seconds.

    Waiting time is w[k+1] = max(0, w[k] + s[k] - g[k+1]), in closed form a running minimum.
    """
    steps = np.concatenate([[0.0], np.cumsum(service[:-1] - gaps[1:])])
    waiting: Floats = steps - np.minimum.accumulate(steps)
    return waiting + service


def highest_rate(service: Floats, bound: float, unit_gaps: Floats, q: float = 0.99) -> float:
    """The highest arrival rate (1/s) at which the simulated `q`-quantile of latency stays within `bound` seconds.

    `unit_gaps` are exponential with mean 1. 0.0 when even a query that never waits is too slow.
    """
    if float(np.quantile(service, q)) > bound:
        return 0.0
    low, high = 0.0, 1.0 / float(service.mean())
    for _ in range(20):
        middle = (low + high) / 2
        if float(np.quantile(simulate(service, unit_gaps / middle), q)) <= bound:
            low = middle
        else:
            high = middle
    return low
