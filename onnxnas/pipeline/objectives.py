"""The objectives a search can be asked for, by the name used on the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from onnxnas.types import Objective

OBJECTIVES: Mapping[str, Objective] = {
    "latency": Objective("latency_ms", "ms", maximise=False),
    "throughput": Objective("throughput", "samples/s", maximise=True),
    "macs": Objective("macs", "MACs", maximise=False),
    "params": Objective("params", "weights", maximise=False),
    "size": Objective("bytes", "bytes", maximise=False),
}

MEASURED = frozenset({"latency_ms", "throughput"})


def objectives(names: Sequence[str], unit: str) -> tuple[Objective, ...]:
    """Quality first (in the metric's own `unit`, higher is better), then the named ones."""
    return (Objective("quality", unit, maximise=True), *(OBJECTIVES[name] for name in names))


def gain(own: Mapping[str, float], other: Mapping[str, float], objectives: Sequence[Objective]) -> float:
    """How many times better figures are than others: the geometric mean over the objectives."""
    ratios = [
        own[o.name] / max(other[o.name], 1e-12) if o.maximise else other[o.name] / max(own[o.name], 1e-12)
        for o in objectives
    ]
    return float(np.exp(np.mean(np.log(np.maximum(ratios, 1e-12)))))
