"""Several processes that train one network of a run together; what they do is in `train.group`.

It is the super-network, or a finalist where there are more cores than finalists. On a CPU, processes of one thread each
train small networks faster than one process of many threads (torch's BatchNormalization and small convolutions gain
little from a second thread). They are started here. With `torchrun` or `accelerate launch` the processes are there
already, on several devices or hosts, all with the same command: process 0 does the run, the others `follow` it until
the super-network is trained.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxnas import measure, train
from onnxnas.errors import EnvironmentProblem
from onnxnas.pipeline import finetuning, trained
from onnxnas.pipeline.member import Member, Request, fitting_memory
from onnxnas.train.settings import TrainSettings

if TYPE_CHECKING:
    from onnxnas.pipeline.line import Line
    from onnxnas.supernet import SuperNetwork

LAUNCHED = "env://"
WORTH_TRYING = 120.0  # seconds of training; starting processes takes some
WORTH = 1.05  # a larger team must be so much faster
LEAST_PART = 32  # samples, for statistics


def launched() -> tuple[int, int]:
    """(rank, size) as a launcher says it; (0, 1) without one."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def sizes(line: Line, seconds: float | None) -> list[int]:
    """The sizes of teams worth trying, `seconds` being what training may take (None: no limit).

    Without a word from the user, one process is compared with one for each core, where that pays and memory is enough.
    """
    _, there = launched()
    if there > 1:
        return [there]
    if line.config.train.processes is not None:
        return [line.config.train.processes]
    return _worth_trying(line, seconds, 1)


def sizes_for_finalists(line: Line, seconds: float | None, at_a_time: int) -> list[int]:
    """The sizes of teams worth trying for each of so many finalists at a time, within `seconds` (None: no limit).

    A launcher's processes are gone by then, all but this one, and an accelerator is one process'.
    """
    said = line.config.finalise.processes
    if launched()[1] > 1 or line.device != "cpu":
        return [1]
    return _worth_trying(line, seconds, at_a_time) if said is None else [max(1, said // at_a_time)]


def _worth_trying(line: Line, seconds: float | None, teams: int) -> list[int]:
    size = min(len(measure.available_cores()) // teams, line.config.train.batch_size // LEAST_PART)
    if line.device != "cpu" or seconds is None or seconds < WORTH_TRYING or size < 2:
        return [1]
    return [1, size] if fitting_memory() >= teams * size else [1]


class Team:
    """This process and size - 1 others of `threads` each; None: they share the cores. On leaving, the others end.

    A context. With a launcher its processes are the team, whatever `size` is.
    """

    def __init__(self, line: Line, size: int, threads: int | None = None) -> None:
        _, there = launched()
        self.line, self._there = line, there > 1
        self.size = there if self._there else size
        self._threads = threads
        self._stack = ExitStack()

    def __enter__(self) -> Team:
        with ExitStack() as stack:
            meeting = LAUNCHED
            if self.size > 1 and not self._there:
                share = self._threads or max(1, len(measure.available_cores()) // self.size)
                place = stack.enter_context(tempfile.TemporaryDirectory(prefix="onnxnas-"))
                meeting = f"file://{place}/meeting"
                for rank in range(1, self.size):
                    member = Member(str(self.line.run.path), share)
                    stack.callback(member.end)
                    member.give(rank, {"do": "join", "rank": rank, "size": self.size, "meeting": meeting})
                stack.enter_context(train.threads(share))
            device = self.line.device
            self.group = stack.enter_context(train.joined(0, self.size, meeting, device))
            if self.size > 1:
                self.group.tell({"do": "follow", "run": str(self.line.run.path.absolute())})
                stack.push(self._dismiss)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def end(self) -> None:
        """The others end now."""
        self._stack.close()

    def _dismiss(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:  # else they may be anywhere; those started here are ended, others notice
            with suppress(EnvironmentProblem):  # gone already
                self.group.tell({"do": "end"})

    def train(
        self, network: SuperNetwork, settings: TrainSettings, *, directory: Path | None = None, **more: Any
    ) -> train.TrainResult:
        """As `train.train`, on the data, metric and seed of the run."""
        if self.size > 1:
            request = {"settings": settings.model_dump(mode="json"), "records": directory is not None}
            self.group.tell({"do": "train", **request})
        return _trained(self.line, network, settings, directory, self.group, **more)

    def perform(self, request: Request) -> dict[str, Any]:
        """A request about a finalist, see `finetuning.perform`."""
        if self.size > 1:
            self.group.tell(request)
        return finetuning.perform(self.line, request, self.group)


def attend(device: str, rank: int, size: int) -> dict[str, Any]:
    """What a launched process other than the first does: trains with it, then is done."""
    from onnxnas.pipeline.line import Line

    with train.joined(rank, size, LAUNCHED, train.chosen_device(device)) as group:
        line = Line.at(group.hear()["run"])
        follow(group, line)
    return {"schema": 1, "run": str(line.run.path), "stage": "train", "rank": rank}


def follow(group: train.Group, line: Line) -> None:
    """Take part in whatever process 0 trains, until it says that it is enough."""
    while (request := group.hear())["do"] != "end":
        if request["do"] != "train":
            finetuning.perform(line, request, group)
            continue
        network = trained.fresh(line.space, line.device)
        directory = line.run / "supernet" if request["records"] else None
        _trained(line, network, TrainSettings.model_validate(request["settings"]), directory, group)


def _trained(
    line: Line,
    network: SuperNetwork,
    settings: TrainSettings,
    directory: Path | None,
    group: train.Group,
    **more: Any,
) -> train.TrainResult:
    return train.train(
        network,
        line.data,
        settings,
        directory=directory,
        seed=line.config.seed,
        metric=line.metric,
        group=group,
        **more,
    )
