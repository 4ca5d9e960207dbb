"""A process that works on a run beside others: `python -m onnxnas.pipeline.worker RUN`.

It reads one request a line from its input, a JSON object, and writes JSON objects, one a line, to its output:

    {"say": text}                               a line for the user
    {"step": [stage, done, total, text]}        progress
    {"answer": {...}}                           the request is done
    {"error": [class name, message]}            it failed

Whatever else prints goes to the error stream. It ends when its input does, in the middle of a request too: so
it never outlives the process that owns the run.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from onnxnas import train
from onnxnas.errors import OnnxnasError
from onnxnas.pipeline import finetuning, team
from onnxnas.pipeline.line import Line
from onnxnas.pipeline.memory import keep_freed

Row = Mapping[str, Any]


def perform(line: Line, request: Row) -> dict[str, Any]:
    """Do one request. Raises what the work raises.

    {"do": "speed", "subnet"}                              -> what `finetuning.speed` returns
    {"do": "teach", "epoch", "epochs"}                     -> {}, when the epoch's answers are written
    {"do": "tune", "subnet", "index", "epochs", "limit"}   -> what `finetuning.tune` returns
    {"do": "join", "rank", "size", "meeting"}              -> {}, when the team is done, see `team`

    "speed" and "tune" with "processes" above 1 are done by as many, of "threads" each, which are started for it.
    """
    if request["do"] == "join":
        device = line.device
        with train.joined(request["rank"], request["size"], request["meeting"], device) as group:
            group.hear()  # which run this is about is known
            team.follow(group, line)
        return {}
    if request["do"] == "teach":
        finetuning.teach(line, request["epoch"], request["epochs"])
        return {}
    if request.get("processes", 1) == 1:
        return finetuning.perform(line, request, train.Group())
    with team.Team(line, request["processes"], request["threads"]) as together:
        return together.perform(request)


class _Telling:
    """A `Reporter` that sends rows."""

    def __init__(self, send: Callable[[Row], None]) -> None:
        self._send = send

    def say(self, text: str) -> None:
        self._send({"say": text})

    def step(self, stage: str, done: float, total: float, text: str = "") -> None:
        self._send({"step": [stage, done, total, text]})


def main(path: str) -> None:
    """Answer requests until the input ends."""
    keep_freed()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the owner decides, and closes the input
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def send(row: Row) -> None:
        answers.write(json.dumps(row) + "\n")
        answers.flush()

    requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(requests,), daemon=True).start()
    line = Line.at(path, _Telling(send))
    while True:
        request = requests.get()
        try:
            send({"answer": perform(line, request)})
        except OnnxnasError as error:
            send({"error": [type(error).__name__, str(error)]})


def _read(requests: queue.SimpleQueue[dict[str, Any]]) -> None:
    for text in sys.stdin:
        requests.put(json.loads(text))
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
