"""How a candidate is judged during the search: quality on validation samples, latency in the runtime.

    made and judged as `candidates` does it -> measured beside the baseline

Latency is told as `reference / speed-up`: the reference is the baseline's latency, measured once at the start of
the search, and the speed-up is measured in turns with the baseline. So what the machine does between two
candidates cancels, and values of one study can be compared.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from onnxnas.measure import CandidateError
from onnxnas.pipeline import objectives
from onnxnas.pipeline.candidates import Candidates
from onnxnas.types import Measurement, Subnet, Trial

if TYPE_CHECKING:
    import rewriters
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
        search = line.config.search
        self._candidates = Candidates(
            line, measurer, recalibration_images=search.recalibration_images, limit=search.val_limit
        )
        self._known: dict[str, tuple[Statistics, float]] = {}
        self._latency = bool(objectives.MEASURED.intersection(line.config.objectives))

    def quality(self, subnet: Subnet) -> float:
        """On validation samples, statistics recalibrated."""
        return self._candidates.judged(subnet)

    def evaluate(self, subnet: Subnet, number: int) -> Trial:
        """One trial; a model that crashes, hangs or computes nonsense is a status."""
        began = time.perf_counter()
        try:
            values, measurements = self._judged(subnet)
        except CandidateError as error:
            seconds = time.perf_counter() - began
            return Trial(number, subnet, error.status, {}, {}, seconds, error.reason, self._environment)
        seconds = time.perf_counter() - began
        return Trial(number, subnet, "ok", values, measurements, seconds, "", self._environment)

    def _judged(self, subnet: Subnet) -> tuple[dict[str, float], dict[str, Measurement]]:
        """By objective. Raises CandidateError when the candidate does not run as it should."""
        line = self._line
        model, quality, made = self._made(subnet.served({}))
        cost = line.space.cost(subnet.structure)
        values: dict[str, float] = {
            "quality": quality,
            "macs": float(cost.macs),
            "params": float(cost.params),
            "bytes": float(len(model)),
            **objectives.own(line.config.objectives, made.proto),
        }
        if not self._latency:
            return values, {}
        found = self._measurer.settled(model, served=line.serving.of(subnet))
        if found.status != "ok":
            raise CandidateError(found.status, found.error)
        measurements = self._figures(found, line.serving.samples(subnet))
        values |= {name: figure.value for name, figure in measurements.items()}
        return values | objectives.tails(found, values["latency_ms"]), measurements

    def _made(self, subnet: Subnet) -> tuple[bytes, float, rewriters.Parts]:
        """The file, how good it is, and its parts; what was served in another way just now is not judged again."""
        key = subnet.key()
        statistics, quality = self._known.get(key, (None, None))
        if statistics is None:
            statistics = self._candidates.statistics(subnet)
        made = self._candidates.made(subnet, statistics)
        model = made.to_bytes()
        if quality is None:
            quality = self._candidates.quality(subnet, statistics, model)
            if len(self._known) >= KEPT:
                self._known.pop(next(iter(self._known)))
            self._known[key] = (statistics, quality)
        return model, quality, made

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
