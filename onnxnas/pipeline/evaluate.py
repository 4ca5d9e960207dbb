"""How a candidate is judged during the search: quality in torch, latency in the runtime that will serve it.

    recalibrate BatchNorm -> quality on validation samples -> cut out of the ONNX file -> measure beside the baseline

Latency is told as `reference / speed-up`: the reference is the baseline's latency, measured once at the start of
the search, and the speed-up is measured in turns with the baseline. So what the machine does between two
candidates cancels, and values of one study can be compared.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from onnxnas import train
from onnxnas.pipeline import build, objectives
from onnxnas.types import Measurement, Subnet, Trial

if TYPE_CHECKING:
    from onnxnas.measure import Latency, Measurer
    from onnxnas.pipeline.line import Line
    from onnxnas.supernet import Statistics


KEPT = 64  # networks whose statistics are kept


class CandidateEvaluator:
    """An `onnxnas.search.Evaluator`. The answer depends on the candidate alone, apart from measurement noise.

    `reference_ms` is the baseline's latency; latency is measured only when an objective needs it.
    """

    def __init__(self, line: Line, measurer: Measurer, reference_ms: float, environment: str) -> None:
        self._line = line
        self._measurer = measurer
        self._reference = reference_ms
        self._environment = environment
        self._judge = train.Judge(
            line.network,
            line.data,
            "val",
            line.metric,
            recalibration_images=line.config.search.recalibration_images,
            limit=line.config.search.val_limit,
            seed=line.config.seed,
        )
        self._known: dict[str, tuple[Statistics, float]] = {}
        self._latency = bool(objectives.MEASURED.intersection(line.config.objectives))

    def quality(self, subnet: Subnet) -> float:
        """On validation samples, statistics recalibrated."""
        return self._judge.quality(subnet)

    def evaluate(self, subnet: Subnet, number: int) -> Trial:
        """One trial; a model that crashes, hangs or computes nonsense is a status."""
        began = time.perf_counter()
        line = self._line
        structure = subnet.structure
        statistics, quality = self._judged(structure)
        made = build.cut(line.network, structure, statistics)
        model = made.to_bytes()
        cost = line.space.cost(structure)
        values: dict[str, float] = {
            "quality": quality,
            "macs": float(cost.macs),
            "params": float(cost.params),
            "bytes": float(len(model)),
            **objectives.own(line.config.objectives, made.proto),
        }
        measurements: dict[str, Measurement] = {}
        if self._latency:
            found = self._measurer.settled(model, served=line.serving.of(subnet))
            if found.status != "ok":
                seconds = time.perf_counter() - began
                return Trial(number, subnet, found.status, {}, {}, seconds, found.error, self._environment)
            measurements = self._figures(found, line.serving.samples(subnet))
            values |= {name: figure.value for name, figure in measurements.items()}
            values |= objectives.tails(found, values["latency_ms"])
        seconds = time.perf_counter() - began
        return Trial(number, subnet, "ok", values, measurements, seconds, "", self._environment)

    def _judged(self, structure: Subnet) -> tuple[Statistics, float]:
        """Statistics and quality; a network that was served in another way just now is not judged again."""
        key = structure.key()
        if key not in self._known:
            if len(self._known) >= KEPT:
                self._known.pop(next(iter(self._known)))
            statistics = self._judge.statistics(structure)
            self._known[key] = (statistics, self._judge.quality(structure, statistics))
        return self._known[key]

    def _figures(self, found: Latency, samples: float) -> dict[str, Measurement]:
        """`samples`: of an inference, relative to the baseline's."""
        speedup: Any = found.speedup
        reference = self._reference * samples
        batch = self._line.config.batch * samples
        latency = Measurement(
            reference / speedup.value,
            reference / speedup.high,
            reference / speedup.low,
            speedup.n,
            "ms",
            "short",
        )
        rate = 1000.0 * batch
        throughput = Measurement(
            rate / latency.value, rate / latency.high, rate / latency.low, latency.n, "samples/s", "short"
        )
        return {"latency_ms": latency, "throughput": throughput, "speedup": speedup}
