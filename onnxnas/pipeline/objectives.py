"""The objectives a search can be asked for, by the name used on the command line, and a user's own.

An own objective is a function of the finished ONNX model, named `module:function`, that returns a number. Attributes
of the function say more: `unit` (default none) and `maximise` (default False, smaller is better).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxnas.errors import ConfigError
from onnxnas.plugins import is_reference, load_object
from onnxnas.types import Objective

if TYPE_CHECKING:
    from onnx import ModelProto

    from onnxnas.measure import Latency

OBJECTIVES: Mapping[str, Objective] = {
    "latency": Objective("latency_ms", "ms", maximise=False),
    "latency-p90": Objective("latency_p90_ms", "ms", maximise=False),
    "latency-p99": Objective("latency_p99_ms", "ms", maximise=False),
    "throughput": Objective("throughput", "samples/s", maximise=True),
    "macs": Objective("macs", "MACs", maximise=False),
    "params": Objective("params", "weights", maximise=False),
    "size": Objective("bytes", "bytes", maximise=False),
    "memory": Objective("memory", "bytes", maximise=False),
}

MEASURED = frozenset({"latency", "latency-p90", "latency-p99", "throughput", "memory"})


def objectives(
    names: Sequence[str], unit: str, limits: Mapping[str, float] | None = None
) -> tuple[Objective, ...]:
    """Quality first (in the metric's own `unit`, higher is better), then the named ones; limits by the same names.

    Raises ConfigError when an own objective cannot be imported.
    """
    limits = limits or {}
    quality = Objective("quality", unit, maximise=True, limit=limits.get("quality"))
    return (quality, *(dataclasses.replace(named(name), limit=limits.get(name)) for name in names))


def named(name: str) -> Objective:
    """One of `OBJECTIVES`, or the one that a user's function is. Raises ConfigError when it cannot be imported."""
    if not is_reference(name):
        return OBJECTIVES[name]
    function = _function(name)
    unit, maximise = getattr(function, "unit", ""), getattr(function, "maximise", False)
    return Objective(name.rpartition(":")[2], str(unit), maximise=bool(maximise))


def own(names: Sequence[str], model: Callable[[], ModelProto]) -> dict[str, float]:
    """What the user's functions among the named objectives say of a model, which is made if there are any."""
    theirs = [name for name in names if is_reference(name)]
    made = model() if theirs else None
    return {named(name).name: float(_function(name)(made)) for name in theirs if made is not None}


@cache
def _function(name: str) -> Callable[[ModelProto], float]:
    function: Callable[[ModelProto], float] = load_object(name, what="objective")
    if not callable(function):
        raise ConfigError(f"objective {name!r} is not callable: give a function of an ONNX model")
    return function


def tails(found: Latency, p50: float) -> dict[str, float]:
    """The slow end of the latencies, in units of `p50`, and the memory of a measured model."""
    if found.p50 is None or found.p90 is None or found.p99 is None:
        return {}
    values = {
        "latency_p90_ms": p50 * found.p90.value / found.p50.value,
        "latency_p99_ms": p50 * found.p99.value / found.p50.value,
    }
    return values if found.peak_memory is None else {**values, "memory": float(found.peak_memory)}


def within(values: Mapping[str, Any], objectives: Sequence[Objective]) -> bool:
    """Whether figures keep all limits."""
    return all(
        values[o.name] >= o.limit if o.maximise else values[o.name] <= o.limit
        for o in objectives
        if o.limit is not None
    )


def gain(own: Mapping[str, float], other: Mapping[str, float], objectives: Sequence[Objective]) -> float:
    """How many times better figures are than others: the geometric mean over the objectives."""
    ratios = [
        own[o.name] / max(other[o.name], 1e-12) if o.maximise else other[o.name] / max(own[o.name], 1e-12)
        for o in objectives
    ]
    return float(np.exp(np.mean(np.log(np.maximum(ratios, 1e-12)))))
