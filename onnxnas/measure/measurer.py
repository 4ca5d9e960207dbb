"""Measure candidates against a baseline, on the target, in a process of their own."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np

from onnxnas.errors import ConfigError, EnvironmentProblem, ModelError
from onnxnas.measure.child import Child, ChildFault
from onnxnas.measure.cores import available_cores, memory_available
from onnxnas.measure.frames import FrameError
from onnxnas.measure.place import Place
from onnxnas.measure.protocol import PROTOCOLS, SHORT, Floats, Protocol
from onnxnas.measure.registry import get_runtime, resolve_settings
from onnxnas.measure.runtime import Array, Model, Target
from onnxnas.types import Measurement

Status = Literal["ok", "crashed", "timeout", "oom", "invalid"]
_CALIBRATIONS = 6
_WIDE = 0.2  # of an interval, relative to its middle
_SLOWED = 1.5  # of the baseline, relative to what it usually takes here
_REMEMBERED = 32  # of the baseline's latencies
_AGAIN = 2
_CALIBRATION_TURNS_SECONDS = 0.12
_CALIBRATION_SECONDS = 3.0


class CandidateError(ModelError):
    """A model could not be run; `status` says how it failed, `reason` why."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status, self.reason = status, message


@dataclass(frozen=True)
class Latency:
    """What became of a candidate. The figures are None unless `status` is 'ok'.

    Latencies are in ms per inference of the target's batch, throughputs in samples per second for one
    request after the other. `speedup` is the baseline's p50 over the candidate's, of one sample, from interleaved
    turns. `peak_memory` is the resident memory in bytes that loading and running the candidate added
    (None where the system does not say). `noise_floor` is the relative difference two sessions of one
    model can show here, included in the intervals; 0 for a protocol of several rounds, whose intervals
    hold it already.
    """

    status: Status
    p50: Measurement | None = None
    p90: Measurement | None = None
    p99: Measurement | None = None
    throughput: Measurement | None = None
    baseline_p50: Measurement | None = None
    baseline_throughput: Measurement | None = None
    speedup: Measurement | None = None
    peak_memory: int | None = None
    noise_floor: float = 0.0
    error: str = ""
    seconds: float = 0.0

    @property
    def faster(self) -> bool:
        """Whether the candidate may be called faster than the baseline: the interval says so."""
        return self.speedup is not None and self.speedup.low > 1.0

    def to_json(self) -> dict[str, Any]:
        names = ("p50", "p90", "p99", "throughput", "baseline_p50", "baseline_throughput", "speedup")
        figures = {name: getattr(self, name) for name in names}
        return {
            "status": self.status,
            **{name: figure.to_json() if figure else None for name, figure in figures.items()},
            "peak_memory": self.peak_memory,
            "noise_floor": self.noise_floor,
            "error": self.error,
            "seconds": self.seconds,
        }


@dataclass(frozen=True, eq=False)
class Served:
    """How a candidate is served when that is not how the baseline is, and the inputs of its timed inferences.

    `target` has the baseline's runtime; `feeds` have its batch.
    """

    target: Target
    feeds: Mapping[str, Array]


class Measurer:
    """A measuring process for one target and baseline. A context manager; not for several threads.

    `feeds` are the inputs of every timed inference, with the target's batch. `timeout` is how long, in
    seconds, a candidate may take for everything but its timed runs. `memory_limit` is in bytes of
    resident memory of the whole process; by default 80 % of what is available.

    `noise_floor` may be given where it is known from before; 0.0 leaves intervals as they are.

    `cores` is how many the process is pinned to, by default as many as the target has threads; those that no other
    measuring process of this machine has, while there are such, and its turns otherwise.

    The process is reused. When a candidate breaks it, the candidate gets a status and the next one
    meets a new process. Raises `ConfigError` (target), `EnvironmentProblem` (no such library, no
    process) and `ModelError` (the baseline itself cannot be run) on entering.
    """

    def __init__(
        self,
        target: Target,
        baseline: Model,
        feeds: Mapping[str, Array],
        *,
        timeout: float = 60.0,
        memory_limit: int | None = None,
        noise_floor: float | None = None,
        seed: int = 0,
        cores: int | None = None,
    ) -> None:
        get_runtime(target.runtime)
        free = available_cores()
        if target.threads > len(free):
            raise ConfigError(
                f"target: threads is {target.threads}; this process may use {len(free)} cores; lower it"
            )
        self.target = target
        self.timeout = timeout
        self.memory_limit = memory_limit if memory_limit is not None else int(0.8 * memory_available())
        self.version = ""
        self._baseline = baseline
        self._feeds = dict(feeds)
        self._rng = np.random.default_rng(seed)
        self._place = Place(cores or target.threads)
        self._child: Child | None = None
        self._floor = noise_floor
        self._held = ""
        self._usual: deque[float] = deque(maxlen=_REMEMBERED)

    def __enter__(self) -> Self:
        self._running()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process. It may be called again."""
        self._end()
        self._place.release()

    def _end(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child = None

    def measure(
        self, model: Model, *, protocol: str | Protocol = "short", served: Served | None = None
    ) -> Latency:
        """Measure a candidate. What is wrong with the candidate becomes a status, not an exception.

        `served`: in another way than the baseline, which is always measured on the target itself. A candidate is
        'invalid' when the runtime refuses it, or its outputs differ in number or shape from the baseline's, or hold
        NaN or infinity where those do not. Raises `EnvironmentProblem` when no measuring process can be had any more,
        and `ConfigError` for an unknown protocol.
        """
        chosen = resolve_protocol(protocol)
        floor = self.noise_floor if chosen.rounds == 1 else 0.0
        start = time.monotonic()
        header = {"do": "measure", "protocol": chosen.to_json(), "floor": floor, "seed": self._seed()}
        batch = self.target.batch
        try:
            path, content = _carried(model)
            if served is not None:
                batch = served.target.batch
                header["settings"] = resolve_settings(served.target)
                content = {**content, **_feed_arrays(served.feeds)}
            answer, _ = self._ask({**header, **path}, content, self.timeout + chosen.seconds)
        except CandidateError as error:
            return Latency(
                error.status, error=error.reason, noise_floor=floor, seconds=time.monotonic() - start
            )
        return self._latency(answer, floor, time.monotonic() - start, batch)

    def settled(
        self, model: Model, *, protocol: str | Protocol = "short", served: Served | None = None
    ) -> Latency:
        """As `measure`, again while the figures look disturbed, three times at most; the least disturbed.

        Where others use the machine, a moment in which they slow down only one of the two models makes a wide
        interval of the speed-up, whose middle may be wrong by a factor of two; or a narrow one that is wrong, while
        the baseline takes far longer than it usually does.
        """
        best = self.measure(model, protocol=protocol, served=served)
        for _ in range(_AGAIN):
            if self._disturbed(best) <= 1:
                break
            found = self.measure(model, protocol=protocol, served=served)
            if found.speedup is not None and self._disturbed(found) < self._disturbed(best):
                best = found
        if best.baseline_p50 is not None:
            self._usual.append(best.baseline_p50.value)
        return best

    def _disturbed(self, found: Latency) -> float:
        """More than 1 where the figures should not be believed; 0 where there are none."""
        if found.speedup is None:
            return 0.0
        wide = (found.speedup.high - found.speedup.low) / found.speedup.value / _WIDE
        if found.baseline_p50 is None or not self._usual:
            return wide
        return max(wide, found.baseline_p50.value / float(np.median(self._usual)) / _SLOWED)

    @property
    def noise_floor(self) -> float:
        """The relative difference that two sessions of the baseline can show; measured once, about a second."""
        if self._floor is None:
            protocol = replace(
                SHORT,
                name="calibration",
                seconds=_CALIBRATION_TURNS_SECONDS,
                min_turns=6,
                warmup_seconds=0.02,
            )
            header = {
                "do": "calibrate",
                "protocol": protocol.to_json(),
                "repeats": _CALIBRATIONS,
                "seconds": _CALIBRATION_SECONDS,
                "seed": self._seed(),
            }
            answer, _ = self._ask(header, {}, 2 * self.timeout + _CALIBRATION_SECONDS)
            self._floor = float(answer["floor"])
        return self._floor

    def run(self, model: Model, feeds: Mapping[str, Array]) -> list[Array]:
        """The outputs of a model on any feeds, in the process. The model stays loaded until another one comes.

        Raises `CandidateError` when it fails (a NaN among the outputs is no failure here), `ConfigError`
        for feeds that are not numbers.
        """
        _, outputs = self._ask_model({"do": "run"}, model, feeds, self.timeout)
        return [np.array(outputs[str(i)]) for i in range(len(outputs))]

    def serve(
        self, model: Model, feeds: Mapping[str, Array], *, rate: float | None, seconds: float, queries: int
    ) -> tuple[Floats, Floats]:
        """(latency, service time) in seconds of queries that arrive at random; see `serving.serve`.

        Raises `CandidateError`.
        """
        header = {"do": "serve", "rate": rate, "seconds": seconds, "queries": queries, "seed": self._seed()}
        _, arrays = self._ask_model(header, model, feeds, self.timeout + 2 * seconds)
        return np.array(arrays["latency"]), np.array(arrays["service"])

    def _ask_model(
        self, header: dict[str, Any], model: Model, feeds: Mapping[str, Array], timeout: float
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        digest = hashlib.sha256(model if isinstance(model, bytes) else str(model).encode()).hexdigest()
        arrays = _feed_arrays(feeds)
        self._running()
        if digest != self._held:
            self._held = ""
            path, content = _carried(model)
            header, arrays = {**header, **path}, {**arrays, **content}
        answer = self._ask({**header, "digest": digest}, arrays, timeout)
        self._held = digest
        return answer

    def _ask(
        self, header: dict[str, Any], arrays: Mapping[str, Array], timeout: float
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        child = self._running()
        try:
            with self._place.turn():
                answer, outputs = child.request(header, arrays, timeout)
        except ChildFault as fault:
            raise CandidateError(fault.status, str(fault)) from fault
        except FrameError as error:
            raise ConfigError(f"feeds: {error}") from error
        if answer.get("status") != "ok":
            status: Status = "oom" if answer.get("status") == "oom" else "invalid"
            raise CandidateError(status, _one_line(answer.get("error", "")))
        return answer, outputs

    def _running(self) -> Child:
        """The process, started and holding the baseline; started again if the last candidate ended it."""
        if self._child is not None and self._child.alive():
            return self._child
        self._end()
        self._held = ""
        child = Child(self.target.threads, self.memory_limit)
        try:
            self._start(child)
        except BaseException:
            child.close()
            raise
        self._child = child
        return child

    def _start(self, child: Child) -> None:
        configure = {
            "do": "configure",
            "runtime": self.target.runtime,
            "settings": resolve_settings(self.target),
            "cores": list(self._place.cores),
            "memory_limit": self.memory_limit,
        }
        what = f"runtime {self.target.runtime!r}"
        try:
            answer, _ = child.request(configure, {}, self.timeout + 30)
            self._judge(answer, what)
            self.version = str(answer["version"])
            what = "the original model"
            path, content = _carried(self._baseline)
            arrays = {**content, **_feed_arrays(self._feeds)}
            answer, _ = child.request({"do": "open", **path}, arrays, self.timeout + 30)
            self._judge(answer, what)
        except ChildFault as fault:
            if what == "the original model":
                raise ModelError(f"{what} cannot be run in {self.target.runtime}: {fault}") from fault
            raise EnvironmentProblem(f"{what} cannot be used: {fault}") from fault
        except FrameError as error:
            raise ConfigError(f"feeds: {error}") from error

    def _judge(self, answer: Mapping[str, Any], what: str) -> None:
        status, error = answer.get("status"), _one_line(answer.get("error", ""))
        if status == "config":
            raise ConfigError(f"{what}: {error}")
        if status == "environment" or (status != "ok" and what.startswith("runtime")):
            raise EnvironmentProblem(f"{what}: {error}")
        if status != "ok":
            raise ModelError(f"{what} cannot be run in {self.target.runtime}: {error}")

    def _latency(self, answer: Mapping[str, Any], floor: float, seconds: float, batch: int) -> Latency:
        try:
            compared = answer["comparison"]
            candidate, baseline = compared["candidate"], compared["baseline"]
            return Latency(
                "ok",
                _measured(candidate["p50"]),
                _measured(candidate["p90"]),
                _measured(candidate["p99"]),
                _measured(candidate["rate"], batch, "samples/s"),
                _measured(baseline["p50"]),
                _measured(baseline["rate"], self.target.batch, "samples/s"),
                _measured(compared["speedup"], batch / self.target.batch),
                answer["peak_memory"],
                floor,
                seconds=seconds,
            )
        except (KeyError, TypeError, ValueError) as error:
            return Latency(
                "crashed", error=f"the measuring process gave no usable figures: {error}", seconds=seconds
            )

    def _seed(self) -> int:
        return int(self._rng.integers(2**31))


def resolve_protocol(protocol: str | Protocol) -> Protocol:
    """'short', 'long' or a protocol of one's own. Raises `ConfigError`."""
    if isinstance(protocol, Protocol):
        return protocol
    if protocol not in PROTOCOLS:
        raise ConfigError(f"protocol {protocol!r} is not known; use one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[protocol]


def _measured(body: Mapping[str, Any], factor: float = 1.0, unit: str = "") -> Measurement:
    value, low, high = (float(body[name]) * factor for name in ("value", "low", "high"))
    if not (0 < low <= value <= high < float("inf")):
        raise ValueError(f"{value} in {low} .. {high}")
    return Measurement(value, low, high, int(body["n"]), unit or str(body["unit"]), str(body["protocol"]))


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:500]


def _carried(model: Model) -> tuple[dict[str, str], dict[str, Array]]:
    """What goes into a request's header, and among its arrays."""
    if isinstance(model, bytes):
        return {}, {"model": np.frombuffer(model, np.uint8)}
    return {"path": str(model.resolve())}, {}


def _feed_arrays(feeds: Mapping[str, Array]) -> dict[str, Array]:
    return {f"feed:{name}": np.asarray(array) for name, array in feeds.items()}
