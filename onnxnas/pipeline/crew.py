"""Several pieces of one run at a time, each in a process of its own with its share of the cores.

Small networks hardly gain from a second thread: a CIFAR ResNet-20 cut to three quarters of its width trains
1.6 times as many images a second in two processes of one thread as in one process of two.
"""

from __future__ import annotations

import selectors
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from onnxnas import errors, measure
from onnxnas.errors import OnnxnasError
from onnxnas.pipeline import worker
from onnxnas.pipeline.member import Member, Request, fitting_memory

if TYPE_CHECKING:
    from onnxnas.pipeline.line import Line

Answer = dict[str, Any]


class Crew:
    """Does requests (see `worker.perform`), `size` at a time; in this process when that is 1.

    Use as a context: on leaving, its processes are ended.
    """

    def __init__(self, line: Line, size: int) -> None:
        self.line, self.size = line, size
        self._threads = max(1, len(measure.available_cores()) // size)
        self._members: list[Member] = []

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *error: object) -> None:
        for member in self._members:
            member.end()
        self._members = []

    def map(self, requests: Sequence[Request]) -> list[Answer]:
        """The answers, in order. Raises what a request raised, EnvironmentProblem when a process died."""
        if self.size == 1:
            return [worker.perform(self.line, request) for request in requests]
        left = deque(enumerate(requests))
        answers: dict[int, Answer] = {}
        with selectors.DefaultSelector() as selector:
            for member in self._gathered(min(self.size, len(requests))):
                selector.register(member.output, selectors.EVENT_READ, member)
                member.give(*left.popleft())
            while len(answers) < len(requests):
                for key, _ in selector.select():
                    member = key.data
                    for row in member.heard():
                        answer = self._heed(row)
                        if answer is None:
                            continue
                        answers[member.busy_with] = answer
                        if left:
                            member.give(*left.popleft())
        return [answers[index] for index in range(len(requests))]

    def together(self, processes: int) -> dict[str, int]:
        """What a request says that so many processes are to do together, with the cores of one."""
        return {"processes": processes, "threads": max(1, self._threads // processes)}

    def _gathered(self, count: int) -> list[Member]:
        while len(self._members) < count:
            self._members.append(Member(str(self.line.run.path), self._threads))
        return self._members[:count]

    def _heed(self, row: Mapping[str, Any]) -> Answer | None:
        """Pass on what a member tells; its answer, if that is what it is."""
        if "say" in row:
            self.line.reporter.say(row["say"])  # the member has written it to log.txt
        elif "step" in row:
            self.line.reporter.step(*row["step"])
        elif "error" in row:
            name, message = row["error"]
            kind = getattr(errors, name, OnnxnasError)
            raise kind(message)
        return row.get("answer")


def fitting(line: Line, pieces: int) -> int:
    """How many processes to use: what the user says, else one a core and piece as far as memory goes.

    On a device other than the CPU, one.
    """
    said = line.config.finalise.processes
    if said is not None:
        return min(said, pieces)
    if line.device != "cpu":
        return 1
    return max(1, min(pieces, len(measure.available_cores()), fitting_memory()))


def makespan(seconds: Sequence[float], size: int) -> float:
    """When the last piece is done, if each goes, in order, to the first of `size` processes that is free."""
    free = [0.0] * size
    for each in seconds:
        first = free.index(min(free))
        free[first] += each
    return max(free)
