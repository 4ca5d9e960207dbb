"""Runtimes that misbehave as their 'model' says: a JSON text like {"mode": "segfault", "us": 100}."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from onnxnas.errors import ConfigError, EnvironmentProblem, ModelError
from onnxnas.measure.runtime import Array, Session


def model(mode: str = "ok", **options: Any) -> bytes:
    return json.dumps({"mode": mode, **options}).encode()


class Fake:
    name = "fake"

    def version(self) -> str:
        return "1"

    def defaults(self, threads: int) -> dict[str, Any]:
        return {"threads": threads}

    def knobs(self, threads: int) -> Mapping[str, tuple[Any, ...]]:
        return {}

    def load(self, model: bytes, settings: Mapping[str, Any]) -> Session:
        try:
            options = json.loads(model)
        except ValueError as error:
            raise ModelError(f"not a fake model: {error}") from error
        at_load = getattr(Modes, "load_" + options["mode"], None)
        if at_load:
            at_load(options)
        return FakeSession(options)


class Adjustable(Fake):
    """The setting `us` is how long an inference takes, whatever the model says; `us` of 0 is refused."""

    def load(self, model: bytes, settings: Mapping[str, Any]) -> Session:
        if settings.get("us") == 0:
            raise ConfigError("setting 'us' is 0; expected more")
        return FakeSession({**json.loads(model), **{k: v for k, v in settings.items() if k == "us"}})


class Witness(Fake):
    """Its version is what the measuring process looks like from inside."""

    def version(self) -> str:
        heavy = ("torch", "onnxruntime", "openvino", "onnx", "pymoo", "optuna")
        seen = {
            "cores": sorted(os.sched_getaffinity(0)),
            "omp": os.environ.get("OMP_NUM_THREADS"),
            "variables": sorted(os.environ),
            "heavy": [name for name in heavy if name in sys.modules],
            "session": os.getsid(0) == os.getpid(),
        }
        return json.dumps(seen)


class Missing(Fake):
    def version(self) -> str:
        raise EnvironmentProblem("fake is not installed; pip install fake")


class FakeSession(Session):
    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = options
        self.calls = 0

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        self.calls += 1
        end = time.perf_counter() + self.options.get("us", 50) / 1e6
        while time.perf_counter() < end:
            pass
        outputs: list[Array] = [feeds["x"] * np.float32(2)]
        at_run = getattr(Modes, "run_" + self.options["mode"], None)
        if at_run and self.calls > self.options.get("after", 0):
            outputs = at_run(self.options, outputs)
        return outputs


class Modes:
    """`load_MODE` and `run_MODE` do what MODE is called."""

    @staticmethod
    def run_segfault(options: Any, outputs: Any) -> Any:
        ctypes.string_at(0)

    @staticmethod
    def load_abort(options: Any) -> None:
        print("terminating for a reason", file=sys.stderr, flush=True)
        os.abort()

    @staticmethod
    def run_bad_alloc(options: Any, outputs: Any) -> Any:
        print("terminate called after throwing an instance of 'std::bad_alloc'", file=sys.stderr, flush=True)
        os.abort()

    @staticmethod
    def run_exit(options: Any, outputs: Any) -> Any:
        os._exit(0)

    @staticmethod
    def run_exit_with_child(options: Any, outputs: Any) -> Any:
        """The grandchild inherits every pipe, so that none of them closes."""
        _grandchild(options)
        os._exit(0)

    @staticmethod
    def run_hang(options: Any, outputs: Any) -> Any:
        """In native code, holding the interpreter's lock, deaf to polite signals, with a grandchild."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        _grandchild(options)
        ctypes.PyDLL(None).sleep(600)

    @staticmethod
    def run_garbage(options: Any, outputs: Any) -> Any:
        for fd in range(3, 64):
            try:
                if stat.S_ISFIFO(os.fstat(fd).st_mode):
                    os.write(fd, b"\x00\xffgarbage of a runtime" * 20)
            except OSError:
                continue
        return outputs

    @staticmethod
    def run_close(options: Any, outputs: Any) -> Any:
        os.closerange(3, 64)
        time.sleep(600)

    @staticmethod
    def load_chatter(options: Any) -> None:
        """100 MB on stderr, and stdout is not the channel of answers."""
        print("hello from the runtime", flush=True)
        line = b"warning: " + b"x" * 991
        for _ in range(100):
            os.write(2, line * 1000)

    @staticmethod
    def run_nan(options: Any, outputs: Any) -> Any:
        outputs[0][0, 0] = np.nan
        return outputs

    @staticmethod
    def run_shape(options: Any, outputs: Any) -> Any:
        return [outputs[0][:, :1]]

    @staticmethod
    def run_more(options: Any, outputs: Any) -> Any:
        return outputs * 2

    @staticmethod
    def run_text(options: Any, outputs: Any) -> Any:
        return [np.array(["a", "b"], object)]

    @staticmethod
    def run_error(options: Any, outputs: Any) -> Any:
        raise KeyError("a bug in the runtime")

    @staticmethod
    def run_says_no_memory(options: Any, outputs: Any) -> Any:
        raise RuntimeError("Failed to allocate memory for requested buffer of size 123")

    @staticmethod
    def run_hog(options: Any, outputs: Any) -> Any:
        """Grows slowly: what is resident passes the limit before what may be reserved does."""
        held = []
        while True:
            held.append(np.ones(6 << 20, np.float64))
            time.sleep(0.06)

    @staticmethod
    def run_hog_at_once(options: Any, outputs: Any) -> Any:
        np.ones(1 << 30, np.float64)


def _grandchild(options: Mapping[str, Any]) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], close_fds=False)
    if "pid_file" in options:
        with open(options["pid_file"], "w") as file:
            file.write(f"{os.getpid()} {process.pid}")
