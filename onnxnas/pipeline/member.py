"""A process that works on a run beside this one (`worker`), seen from its owner."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import psutil

from onnxnas import measure
from onnxnas.errors import EnvironmentProblem

Request = Mapping[str, Any]


class Member:
    """One process."""

    def __init__(self, run: str, threads: int) -> None:
        limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        path = os.pathsep.join(entry for entry in sys.path if entry)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "onnxnas.pipeline.worker", run],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **limits, "PYTHONPATH": path},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self.output = self._process.stdin, self._process.stdout
        self._rest = b""
        self.busy_with = -1

    def give(self, index: int, request: Request) -> None:
        """Begin request number `index`."""
        self.busy_with = index
        with contextlib.suppress(BrokenPipeError):  # that it died is noticed on the other side
            self._input.write(json.dumps(request).encode() + b"\n")
            self._input.flush()

    def heard(self) -> Iterable[dict[str, Any]]:
        """The rows that have come, at least one byte being there. Raises EnvironmentProblem at its end."""
        chunk = os.read(self.output.fileno(), 1 << 16)
        if not chunk:
            raise EnvironmentProblem(
                f"a process that fine-tunes finalists ended with status {self._process.wait()}; what it printed is "
                "above; for want of memory, set finalise.processes to 1; resume continues"
            )
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return [json.loads(line) for line in lines]

    def end(self) -> None:
        """Stop it, whatever it does."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(BrokenPipeError):
            self._input.close()
        self.output.close()


def fitting_memory() -> int:
    """How many more processes like this one there is memory for."""
    return measure.memory_available() // int(psutil.Process().memory_info().rss)
