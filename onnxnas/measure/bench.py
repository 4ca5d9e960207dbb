"""`onnxnas bench`: what a model delivers on this machine, in the scenarios of MLPerf Inference.

single-stream: one query after the other; what counts is the time of one.
offline:       all samples are there; what counts is samples per second, at the batch that suits best.
server:        queries come at random; what counts is how many per second are answered while 99 % of
               them take no longer than a bound, waiting included.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from onnxnas.errors import ConfigError, ModelError
from onnxnas.measure.measurer import CandidateError, Latency, Measurer, resolve_protocol
from onnxnas.measure.protocol import Floats, Protocol, measurement, quantile_intervals
from onnxnas.measure.registry import resolve_settings
from onnxnas.measure.runtime import Array, Model, Target
from onnxnas.measure.serving import highest_rate
from onnxnas.types import Measurement

Scenario = Literal["single-stream", "offline", "server"]
Feeds = Callable[[int], Mapping[str, Array]]
BATCHES = (1, 2, 4, 8, 16, 32, 64)
_BOUND_FACTOR = 10.0  # without a bound of the user's: this many times the median of one query
_PART = 64  # queries per part when latencies are resampled: neighbours in a queue are alike
_BACK_OFF = 0.93


def bench(
    model: Model,
    feeds: Feeds,
    *,
    against: Model | None = None,
    scenario: Scenario = "single-stream",
    target: Target | None = None,
    protocol: str | Protocol = "long",
    batches: Sequence[int] = BATCHES,
    bound_ms: float | None = None,
    timeout: float = 60.0,
    memory_limit: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure `model`, and `against` next to it, as JSON.

    `feeds(batch)` makes the inputs with that many samples. `batches` are tried by 'offline';
    `bound_ms` is the 99th percentile's bound of 'server'. Every figure is a `Measurement` as JSON.
    `speedup` above 1 means that `model` is better than `against`; `verdict` is 'faster', 'slower' or
    'not distinguishable'. Raises `ModelError` when a model cannot be run, `ConfigError` for a wrong option.
    """
    target = target or Target()
    chosen = resolve_protocol(protocol)
    options = {"timeout": timeout, "memory_limit": memory_limit, "seed": seed}
    if scenario == "single-stream":
        result = _single_stream(model, feeds, against, target, chosen, options)
    elif scenario == "offline":
        result = _offline(model, feeds, against, target, chosen, batches, options)
    elif scenario == "server":
        result = _server(model, feeds, against, target, chosen, bound_ms, options)
    else:
        raise ConfigError(f"scenario {scenario!r} is not known; use single-stream, offline or server")
    speedup = result.pop("_speedup")
    return {
        "schema": 1,
        "scenario": scenario,
        "target": {**target.to_json(), "settings": resolve_settings(target)},
        "protocol": chosen.name,
        **result,
        "speedup": speedup.to_json() if speedup else None,
        "verdict": _verdict(speedup) if speedup else None,
    }


def _single_stream(
    model: Model,
    feeds: Feeds,
    against: Model | None,
    target: Target,
    protocol: Protocol,
    options: dict[str, Any],
) -> dict[str, Any]:
    with Measurer(target, against or model, feeds(target.batch), **options) as measurer:
        latency = _succeeded(measurer.measure(model, protocol=protocol), "the model")
    other = None
    if against is not None and latency.baseline_p50 and latency.baseline_throughput:
        other = {
            "p50_ms": latency.baseline_p50.to_json(),
            "samples_per_s": latency.baseline_throughput.to_json(),
        }
    return {
        "model": _figures(latency),
        "against": other,
        "noise_floor": latency.noise_floor,
        "_speedup": latency.speedup if against is not None else None,
    }


def _figures(latency: Latency) -> dict[str, Any]:
    named = {
        "p50_ms": latency.p50,
        "p90_ms": latency.p90,
        "p99_ms": latency.p99,
        "samples_per_s": latency.throughput,
    }
    return {
        **{name: figure.to_json() for name, figure in named.items() if figure},
        "peak_memory": latency.peak_memory,
    }


def _offline(
    model: Model,
    feeds: Feeds,
    against: Model | None,
    target: Target,
    protocol: Protocol,
    batches: Sequence[int],
    options: dict[str, Any],
) -> dict[str, Any]:
    if not batches or min(batches) < 1:
        raise ConfigError(f"batches are {list(batches)}; expected numbers of at least 1")
    results: list[dict[str, Any]] = []
    rates: list[Measurement] = []
    for one in (model, against):
        if one is None:
            continue
        tried = _try_batches(one, feeds, target, protocol, batches, options)
        best = max(tried, key=lambda batch: tried[batch].value)
        with Measurer(replace(target, batch=best), one, feeds(best), **options) as measurer:
            latency = _succeeded(measurer.measure(one, protocol=protocol), f"the model at batch {best}")
        assert latency.throughput is not None
        rates.append(latency.throughput)
        scan = {str(batch): rate.to_json() for batch, rate in tried.items()}
        results.append({"batch": best, **_figures(latency), "by_batch": scan})
    return {
        "model": results[0],
        "against": results[1] if against is not None else None,
        "_speedup": _quotient(rates[0], rates[1], protocol.name) if len(rates) == 2 else None,
    }


def _try_batches(
    model: Model,
    feeds: Feeds,
    target: Target,
    protocol: Protocol,
    batches: Sequence[int],
    options: dict[str, Any],
) -> dict[int, Measurement]:
    """Throughput by batch, in samples per second, up to where it fell twice or the model refuses the batch."""
    quick = replace(protocol, name="scan", seconds=min(0.3, protocol.seconds), rounds=1, min_turns=6)
    tried: dict[int, Measurement] = {}
    fallen = 0
    for batch in sorted(set(batches)):
        try:
            alone = replace(target, batch=batch)
            with Measurer(alone, model, feeds(batch), noise_floor=0.0, **options) as measurer:
                rate = _succeeded(
                    measurer.measure(model, protocol=quick), f"the model at batch {batch}"
                ).throughput
        except ModelError:
            if not tried:
                raise
            break
        assert rate is not None
        best = max((seen.value for seen in tried.values()), default=0.0)
        tried[batch] = rate
        fallen = fallen + 1 if rate.value < best else 0
        if fallen == 2:
            break
    return tried


def _server(
    model: Model,
    feeds: Feeds,
    against: Model | None,
    target: Target,
    protocol: Protocol,
    bound_ms: float | None,
    options: dict[str, Any],
) -> dict[str, Any]:
    if bound_ms is not None and not bound_ms > 0:
        raise ConfigError(f"the latency bound is {bound_ms} ms; expected more than 0")
    inputs = feeds(target.batch)
    results, rates = [], []
    with Measurer(target, against or model, inputs, **options) as measurer:
        for one in (model, against):
            if one is None:
                continue
            _, service = measurer.serve(one, inputs, rate=None, seconds=protocol.seconds / 4, queries=20_000)
            if bound_ms is None:
                bound_ms = _BOUND_FACTOR * float(np.median(service)) * 1e3
            rate, result = _serve_within(
                measurer, one, inputs, service, bound_ms / 1e3, protocol, options["seed"]
            )
            results.append(result)
            rates.append(rate)
    comparable = len(rates) == 2 and all(rate.low > 0 for rate in rates)
    return {
        "bound_ms": bound_ms,
        "model": results[0],
        "against": results[1] if against is not None else None,
        "_speedup": _quotient(rates[0], rates[1], protocol.name) if comparable else None,
    }


def _serve_within(
    measurer: Measurer,
    model: Model,
    inputs: Mapping[str, Array],
    service: Floats,
    bound: float,
    protocol: Protocol,
    seed: int,
) -> tuple[Measurement, dict[str, Any]]:
    """The highest rate that holds the bound: foreseen from service times, then lowered until a real run holds."""
    rng = np.random.default_rng(seed)
    rate = highest_rate(service, bound, rng.exponential(1.0, len(service)))
    drawn = [_resampled_rate(service, bound, rng) for _ in range(60)]
    held, latency = False, service
    for _ in range(8):
        if rate <= 0:
            break
        queries = max(100, int(rate * protocol.seconds / 4))
        latency, _ = measurer.serve(model, inputs, rate=rate, seconds=protocol.seconds / 2, queries=queries)
        held = float(np.quantile(latency, 0.99)) <= bound
        if held:
            break
        rate *= _BACK_OFF
    rate = rate if held else 0.0
    low, high = np.quantile(drawn, [0.025, 0.975])
    n = len(latency)
    figure = measurement((min(float(low), rate), rate, max(float(high), rate)), n, "queries/s", protocol.name)
    parts = [part * 1e3 for part in np.array_split(latency, max(1, n // _PART))]
    intervals = quantile_intervals(parts, (0.5, 0.9, 0.99))
    tails = {
        name: measurement(interval, n, "ms", protocol.name)
        for name, interval in zip(("p50_ms", "p90_ms", "p99_ms"), intervals, strict=True)
    }
    result = {
        "queries_per_s": figure.to_json(),
        **{name: tail.to_json() for name, tail in tails.items()},
        "within_bound": held,
        "utilisation": rate * float(service.mean()),
    }
    return figure, result


def _resampled_rate(service: Floats, bound: float, rng: np.random.Generator) -> float:
    parts = np.array_split(service, max(1, len(service) // _PART))
    drawn = np.concatenate([parts[i] for i in rng.integers(len(parts), size=len(parts))])
    return highest_rate(drawn, bound, rng.exponential(1.0, len(drawn)))


def _quotient(a: Measurement, b: Measurement, protocol: str) -> Measurement:
    """a / b of separate measurements, with the widest interval that theirs allow."""
    return Measurement(a.value / b.value, a.low / b.high, a.high / b.low, min(a.n, b.n), "x", protocol)


def _verdict(speedup: Measurement) -> str:
    if speedup.low > 1.0:
        return "faster"
    return "slower" if speedup.high < 1.0 else "not distinguishable"


def _succeeded(latency: Latency, what: str) -> Latency:
    if latency.status != "ok":
        raise CandidateError(latency.status, f"{what}: {latency.error}")
    return latency
