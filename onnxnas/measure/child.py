"""The parent's end of a measuring process: start it, ask it, and end it whatever it does.

The process has its own session, so that killing its process group takes everything it started along.
Nothing it does can block the parent: pipes are non-blocking, every wait has a deadline, what it prints
is drained and only the end of it is kept, its memory is watched.
"""

from __future__ import annotations

import contextlib
import os
import resource
import selectors
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from onnxnas.errors import EnvironmentProblem
from onnxnas.measure.frames import PREFIX, FrameError, decode, encode, lengths
from onnxnas.measure.runtime import Array

_TICK = 0.05
_KEEP_STDERR = 64 << 10
_MAX_ANSWER = 4 << 30
_KEPT_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "TZ")
_PAGE = resource.getpagesize()

Fault = Literal["crashed", "timeout", "oom"]


class ChildFault(Exception):
    """The process died, hung, answered nonsense or outgrew its memory; it is gone now."""

    def __init__(self, status: Fault, message: str) -> None:
        super().__init__(message)
        self.status = status


def clean_environment(threads: int) -> dict[str, str]:
    """Only what a process needs to start, and one thread count for every library that reads one."""
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    return {**kept, **dict.fromkeys(names, str(threads)), "PYTHONPATH": path, "PYTHONHASHSEED": "0"}


class Child:
    """A running worker. One request at a time; after a `ChildFault` it is dead and cleaned up."""

    def __init__(self, threads: int, memory_limit: int | None) -> None:
        request_read, self._requests = os.pipe()
        self._answers, answer_write = os.pipe()
        self._stderr, stderr_write = os.pipe()
        lifeline_read, self._lifeline = os.pipe()
        theirs = (request_read, answer_write, lifeline_read)
        command = [sys.executable, "-P", "-m", "onnxnas.measure.worker", *map(str, theirs)]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stderr_write,
                stderr=stderr_write,
                pass_fds=theirs,
                env=clean_environment(threads),
                start_new_session=True,
            )
        except OSError as error:
            for fd in (self._requests, self._answers, self._stderr, self._lifeline):
                os.close(fd)
            raise EnvironmentProblem(f"the measuring process cannot be started: {error}") from error
        finally:
            for fd in (*theirs, stderr_write):
                os.close(fd)
        ours = (self._requests, self._answers, self._stderr, self._lifeline)
        for fd in ours:
            os.set_blocking(fd, False)
        self.memory_limit = memory_limit
        self._printed = bytearray()
        self._end = weakref.finalize(self, _end, self._process, ours, os.getpid())

    @property
    def pid(self) -> int:
        return self._process.pid

    def alive(self) -> bool:
        """Whether the process runs and can be asked."""
        return self._end.alive and not self._exited()

    def close(self) -> None:
        """End the process and everything it started; it may be called again."""
        self._end()

    def request(
        self, header: Mapping[str, Any], arrays: Mapping[str, Array], timeout: float
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        """The answer to a request, within `timeout` seconds. Raises `ChildFault`; FrameError for bad arrays."""
        pieces = [piece for piece in encode(header, arrays) if piece.nbytes]
        try:
            return self._exchange(pieces, timeout)
        except BaseException:  # also an interrupt: the two ends are out of step now
            self.close()
            raise

    def _exchange(self, pieces: list[memoryview], timeout: float) -> tuple[dict[str, Any], dict[str, Array]]:
        deadline = time.monotonic() + timeout
        received = _Received()
        with selectors.DefaultSelector() as selector:
            selector.register(self._answers, selectors.EVENT_READ)
            selector.register(self._stderr, selectors.EVENT_READ)
            selector.register(self._requests, selectors.EVENT_WRITE)
            while True:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise ChildFault("timeout", f"no answer within {timeout:.3g} s")
                for key, _ in selector.select(min(left, _TICK)):
                    if key.fd == self._stderr:
                        if not self._drain():
                            selector.unregister(self._stderr)
                    elif key.fd == self._requests:
                        if not self._send(pieces):
                            selector.unregister(self._requests)
                    elif not self._receive(received):
                        raise self._death()
                if received.complete():
                    return received.decoded()
                if self._exited():  # what it started may still hold the pipes open: the stream need not end
                    self._receive(received)
                    if received.complete():
                        return received.decoded()
                    raise self._death()
                self._watch_memory()

    def _send(self, pieces: list[memoryview]) -> bool:
        """Write what the pipe takes; whether more is to be written."""
        with contextlib.suppress(BlockingIOError):
            while pieces:
                try:
                    sent = os.write(self._requests, pieces[0])
                except BrokenPipeError:
                    return False  # its death is noticed on the answers' side
                pieces[0] = pieces[0][sent:]
                if not pieces[0].nbytes:
                    pieces.pop(0)
        return bool(pieces)

    def _receive(self, received: _Received) -> bool:
        """Read what has come; False at the end of the stream before a whole answer."""
        try:
            return received.read(self._answers)
        except FrameError as error:
            raise ChildFault("crashed", f"the process wrote garbage instead of an answer: {error}") from error

    def _drain(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            chunk = os.read(self._stderr, 1 << 20)
            self._printed += chunk
            del self._printed[:-_KEEP_STDERR]
            return bool(chunk)
        return True

    def _watch_memory(self) -> None:
        if self.memory_limit is None:
            return
        with contextlib.suppress(OSError, IndexError, ValueError):
            with open(f"/proc/{self.pid}/statm") as file:
                resident = int(file.read().split()[1]) * _PAGE
            if resident > self.memory_limit:
                limit = self.memory_limit / 2**20
                raise ChildFault(
                    "oom", f"resident memory {resident / 2**20:.0f} MiB is above the limit {limit:.0f} MiB"
                )

    def _exited(self) -> bool:
        """Look without reaping: until reaped, the process's number belongs to no one else."""
        try:
            options = os.WEXITED | os.WNOHANG | os.WNOWAIT
            return os.waitid(os.P_PID, self.pid, options) is not None
        except ChildProcessError:
            return True

    def _death(self) -> ChildFault:
        for _ in range(int(0.5 / _TICK)):  # the stream ends a moment before the process does
            if self._exited():
                break
            time.sleep(_TICK)
        ended_itself = self._exited()
        for _ in range(64):
            before = bytes(self._printed)
            if not self._drain() or bytes(self._printed) == before:
                break
        self.close()
        code = self._process.returncode
        lines: Sequence[str] = self._printed.decode(errors="replace").strip().splitlines()
        said = "".join(f"; it printed: {line.strip()[:200]}" for line in lines[:1])
        if not ended_itself:
            return ChildFault("crashed", "the process closed its answers" + said)
        if code is None or code >= 0:
            return ChildFault("crashed", f"the process ended with status {code} before answering{said}")
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        text = self._printed.lower()
        if -code == signal.SIGKILL or b"bad_alloc" in text or b"memoryerror" in text:
            return ChildFault("oom", f"the process was ended by {name}, most likely for want of memory{said}")
        return ChildFault("crashed", f"the process was ended by {name}{said}")


class _Received:
    """A frame that arrives in pieces."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._body = bytearray()
        self._sizes: tuple[int, int] | None = None
        self._got = 0

    def read(self, fd: int) -> bool:
        while not self.complete():
            try:
                if self._sizes is None:
                    chunk = os.read(fd, PREFIX.size - len(self._buffer))
                elif len(self._buffer) < self._sizes[0]:
                    chunk = os.read(fd, self._sizes[0] - len(self._buffer))
                else:
                    count = os.readv(fd, [memoryview(self._body)[self._got :]])
                    self._got += count
                    if not count:
                        return False
                    continue
            except BlockingIOError:
                return True
            if not chunk:
                return False
            self._buffer += chunk
            if self._sizes is None and len(self._buffer) == PREFIX.size:
                self._sizes = lengths(bytes(self._buffer), _MAX_ANSWER)
                self._buffer, self._body = bytearray(), bytearray(self._sizes[1])
        return True

    def complete(self) -> bool:
        return self._sizes is not None and (len(self._buffer), self._got) == self._sizes

    def decoded(self) -> tuple[dict[str, Any], dict[str, Array]]:
        try:
            return decode(bytes(self._buffer), memoryview(self._body))
        except FrameError as error:
            raise ChildFault("crashed", f"the process wrote garbage instead of an answer: {error}") from error


def _end(process: subprocess.Popen[bytes], fds: Sequence[int], owner: int) -> None:
    if os.getpid() != owner:  # a fork of the owner exits: not its process to end
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # not yet reaped: the number is still this group's
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=10)
    for fd in fds:
        os.close(fd)
