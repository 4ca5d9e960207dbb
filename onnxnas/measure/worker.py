"""The measuring process: `python -m onnxnas.measure.worker REQUESTS ANSWERS LIFELINE` (file descriptors).

It answers one frame (see `frames`) with one frame until its input closes. It may be killed at any
moment; it holds nothing that is not also held by its parent. Whatever a runtime prints goes to stderr.

Requests, by `do`: `configure` (once, first), `open` (baseline and feeds), `calibrate`, `measure`, `run`,
`serve`. Answers carry `status`: 'ok', 'invalid', 'oom', and for the parent's own mistakes 'config' or
'environment'; then `error` says what is wrong.
"""

from __future__ import annotations

import ctypes
import faulthandler
import fcntl
import gc
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from onnxnas.errors import ConfigError, EnvironmentProblem, OnnxnasError
from onnxnas.measure.frames import PREFIX, FrameError, decode, encode, lengths
from onnxnas.measure.protocol import Protocol, collect, noise_floor
from onnxnas.measure.registry import get_runtime
from onnxnas.measure.runtime import Array, Call, Model, Runtime, Session, all_finite
from onnxnas.measure.serving import serve
from onnxnas.measure.summary import summarise

_OOM_TEXTS = ("bad_alloc", "bad allocation", "failed to allocate", "out of memory", "cannot allocate memory")
_MAX_REQUEST = 1 << 40
_DATA_HEADROOM = 512 << 20  # private memory that is reserved but not resident: stacks, allocator arenas


Contender = tuple[Model, Mapping[str, Any], Mapping[str, Array]]  # with its settings and inputs


class Invalid(Exception):
    """The candidate ran but what it gave cannot be used."""


class Worker:
    """State between requests: the runtime, the baseline's session and what it gave, one loaded model."""

    def __init__(self) -> None:
        self.runtime: Runtime
        self.settings: dict[str, Any] = {}
        self.feeds: dict[str, Array] = {}
        self.model: Model = b""
        self.baseline: Session
        self.expected: list[Array] = []
        self.held: tuple[str, Session] | None = None

    def answer(
        self, header: Mapping[str, Any], arrays: dict[str, Array]
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        do = getattr(self, "do_" + str(header["do"]))
        try:
            body: dict[str, Any]
            body, outputs = do(header, arrays)
            return {"status": "ok", **body}, outputs
        except MemoryError as error:
            return {"status": "oom", "error": str(error) or "MemoryError"}, {}
        except Invalid as error:
            return {"status": "invalid", "error": str(error)}, {}
        except (ConfigError, EnvironmentProblem) as error:
            kind = "config" if isinstance(error, ConfigError) else "environment"
            return {"status": kind, "error": str(error)}, {}
        except Exception as error:  # noqa: BLE001 - a third party's runtime may raise anything
            text = str(error) if isinstance(error, OnnxnasError) else f"{type(error).__name__}: {error}"
            oom = any(mark in text.lower() for mark in _OOM_TEXTS)
            return {"status": "oom" if oom else "invalid", "error": text}, {}

    def do_configure(self, header: Mapping[str, Any], _: Any) -> tuple[dict[str, Any], dict[str, Array]]:
        self.runtime = get_runtime(header["runtime"])
        self.settings = header["settings"]
        return {"version": self.runtime.version(), "pid": os.getpid()}, {}

    def do_open(
        self, header: Mapping[str, Any], arrays: dict[str, Array]
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        self.model = _model(header, arrays)
        self.feeds = _feeds(arrays)
        self.baseline = self._load(self.model)
        self.expected = self.baseline.run(self.feeds)
        return {}, {}

    def do_calibrate(self, header: Mapping[str, Any], _: Any) -> tuple[dict[str, Any], dict[str, Array]]:
        """The noise floor: further sessions of the baseline, each against the kept one.

        `repeats` of them, or as few as three where they take longer than `seconds`.
        """
        protocol = Protocol(**header["protocol"])
        rng = np.random.default_rng(header["seed"])
        kept = self.baseline.bind(self.feeds)
        seen: list[float] = []
        end = time.monotonic() + float(header["seconds"])
        while len(seen) < 3 or (len(seen) < int(header["repeats"]) and time.monotonic() < end):
            other = self._load(self.model)
            turns = collect([other.bind(self.feeds), kept], protocol, rng, settle=settle)
            seen.append(float(np.log(np.median(turns.ratios()))))
        return {"floor": noise_floor(np.array(seen))}, {}

    def do_measure(
        self, header: Mapping[str, Any], arrays: dict[str, Array]
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        protocol = Protocol(**header["protocol"])
        rng = np.random.default_rng(header["seed"])
        model = _model(header, arrays)
        settings = header.get("settings", self.settings)
        feeds = _feeds(arrays) or self.feeds
        expected = self.expected if feeds is self.feeds else self.baseline.run(feeds)
        rounds, memory = [], Memory()
        candidate = self.runtime.load(model, settings)
        _check(candidate.run(feeds), expected)
        peak = memory.peak()
        if protocol.rounds == 1:
            calls = [candidate.bind(feeds), self.baseline.bind(self.feeds)]
            rounds.append(collect(calls, protocol, rng, settle=settle))
        for _round in range(protocol.rounds if protocol.rounds > 1 else 0):
            seconds = protocol.seconds / protocol.rounds
            calls = self._fresh(
                {0: (model, settings, feeds), 1: (self.model, self.settings, self.feeds)}, rng
            )
            rounds.append(collect(calls, protocol, rng, seconds=seconds, settle=settle))
            del calls
        _check(candidate.run(feeds), expected)
        comparison = summarise(rounds, protocol, float(header["floor"]))
        return {"comparison": asdict(comparison), "peak_memory": peak}, {}

    def _fresh(self, contenders: Mapping[int, Contender], rng: np.random.Generator) -> list[Call]:
        """Candidate and baseline, newly loaded in random order: the second one lies elsewhere in memory."""
        calls: dict[int, Call] = {}
        for which in rng.permutation(2):
            model, settings, feeds = contenders[int(which)]
            calls[int(which)] = self.runtime.load(model, settings).bind(feeds)
        return [calls[0], calls[1]]

    def do_run(
        self, header: Mapping[str, Any], arrays: dict[str, Array]
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        outputs = self._hold(header, arrays).run(_feeds(arrays))
        try:
            encode({}, {str(i): output for i, output in enumerate(outputs)})
        except FrameError as error:
            raise Invalid(str(error)) from error
        return {}, {str(i): np.asarray(output) for i, output in enumerate(outputs)}

    def do_serve(
        self, header: Mapping[str, Any], arrays: dict[str, Array]
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        call = self._hold(header, arrays).bind(_feeds(arrays))
        rate, rng = header["rate"], np.random.default_rng(header["seed"])
        latency, service = serve(call, rate, float(header["seconds"]), int(header["queries"]), rng)
        return {}, {"latency": latency, "service": service}

    def _hold(self, header: Mapping[str, Any], arrays: dict[str, Array]) -> Session:
        """The session of the model named by its digest: loaded when it comes along, otherwise kept from before."""
        digest = str(header["digest"])
        if "model" in arrays or "path" in header:
            self.held = None
            self.held = (digest, self._load(_model(header, arrays)))
        if self.held is None or self.held[0] != digest:
            raise Invalid("the model is not loaded")
        return self.held[1]

    def _load(self, model: Model) -> Session:
        return self.runtime.load(model, self.settings)


def _check(outputs: list[Array], expected: list[Array]) -> None:
    """A candidate must give what the baseline gives: as many outputs, as shaped, finite where those are."""
    if len(outputs) != len(expected):
        raise Invalid(f"{len(outputs)} outputs; the original has {len(expected)}")
    for number, (got, original) in enumerate(zip(outputs, expected, strict=True)):
        if np.shape(got) != original.shape:
            raise Invalid(f"output {number} has shape {np.shape(got)}; the original's has {original.shape}")
        if not all_finite(np.asarray(got)) and all_finite(original):
            raise Invalid(f"output {number} holds NaN or infinity")


def _model(header: Mapping[str, Any], arrays: dict[str, Array]) -> Model:
    """The model that came with a request, or the file it names."""
    return Path(header["path"]) if "path" in header else arrays.pop("model").tobytes()


class Memory:
    """Resident memory of this process that is added from now on, in bytes."""

    def __init__(self) -> None:
        gc.collect()
        with _ignored():
            ctypes.CDLL(None).malloc_trim(0)
        self._before: int | None = None
        with _ignored():
            Path("/proc/self/clear_refs").write_text("5")
            self._before = _status("VmRSS")

    def peak(self) -> int | None:
        """None where the system does not say."""
        if self._before is None:
            return None
        with _ignored():
            return max(0, _status("VmHWM") - self._before)
        return None


@contextmanager
def _ignored() -> Iterator[None]:
    """What the system may refuse without harm."""
    try:
        yield
    except (OSError, AttributeError, ValueError):
        return


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise ValueError(key)


def _feeds(arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {name.removeprefix("feed:"): array for name, array in arrays.items() if name.startswith("feed:")}


def settle(limit: float = 0.2) -> None:
    """Wait until no other thread of this process runs.

    Thread pools spin for a while after an inference (ONNX Runtime: 27 ms) in the hope of another one;
    on the same cores they would slow the other contender down, measured more than twofold.
    """
    me = str(threading.get_native_id())
    end = time.monotonic() + limit
    while any(_running(thread) for thread in os.listdir("/proc/self/task") if thread != me):
        if time.monotonic() > end:
            return
        time.sleep(0.0005)


def _running(thread: str) -> bool:
    try:
        with open(f"/proc/self/task/{thread}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "R"
    except (OSError, IndexError):
        return False


def limit_process(lifeline: int, cores: list[int], memory_limit: int | None) -> None:
    """Pin to `cores`, cap memory, write no core dumps, and die with the parent.

    The parent holds the other end of `lifeline` and never writes: when it dies, however, the kernel
    signals this whole process group (SIGIO, whose default action ends it) even in native code.
    """
    os.sched_setaffinity(0, cores)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory_limit is not None:
        hard = memory_limit + _DATA_HEADROOM
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)


def _read(file: BinaryIO, count: int) -> memoryview | None:
    buffer = bytearray(count)
    view, at = memoryview(buffer), 0
    while at < count:
        got = os.readv(file.fileno(), [view[at:]])
        if got == 0:
            return None
        at += got
    return view


def main(arguments: list[str]) -> None:
    """Serve requests until the input closes."""
    requests, answers, lifeline = (int(text) for text in arguments)
    faulthandler.enable()
    worker = Worker()
    with open(requests, "rb", buffering=0) as source, open(answers, "wb", buffering=0) as sink:
        while (prefix := _read(source, PREFIX.size)) is not None:
            text_size, body_size = lengths(bytes(prefix), _MAX_REQUEST)
            text, body = _read(source, text_size), _read(source, body_size)
            if text is None or body is None:
                return
            header, arrays = decode(bytes(text), body)
            if header["do"] == "configure":
                limit_process(lifeline, header["cores"], header["memory_limit"])
            answer, outputs = worker.answer(header, arrays)
            del arrays, body
            for piece in encode(answer, outputs):
                at = 0
                while at < piece.nbytes:
                    at += os.write(sink.fileno(), piece[at:])


if __name__ == "__main__":
    main(sys.argv[1:])
