"""The run directory: who owns it, which stages are done, and whose it is.

    RUN/config.yaml  environment.json  model.onnx  space.json      prepare
    RUN/supernet/                                                   train
    RUN/study.db  trials.csv  (prior|reduced|predictors).json       search
    RUN/pareto.csv  pareto/rank_NN/  result.json  report.html       finalise
    RUN/lessons/                                                    answers to learn from, worth keeping
    RUN/stages/STAGE.json                                           written last: the stage is complete
    RUN/.lock                                                       held while a command works on RUN

A completion marker carries the SHA-256 of what the stage wrote, so that a damaged file is noticed by
the stage that reads it. A decision that depends on the speed of this machine (how many epochs fit the
time budget) is recorded once, in `RUN/stages/STAGE.plan.json`; a resumed run reads it and so does the same.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onnxnas.errors import EnvironmentProblem, RunError
from onnxnas.pipeline import files

STAGES = ("prepare", "train", "search", "finalise")

_OUTPUTS: Mapping[str, tuple[str, ...]] = {
    "prepare": ("model.onnx", "space.json"),
    "train": ("supernet",),
    "search": (
        *("study.db", "study.db-journal", "study.db-wal", "study.db-shm", "trials.csv"),
        *("prior.json", "reduced.json", "predictors.json", "glances.jsonl"),
    ),
    "finalise": ("chosen.json", "starts", "pareto.csv", "pareto", "finalists", "result.json", "report.html"),
}


class RunDirectory:
    """One run on disk. Making the object touches nothing; `locked` is where writing begins."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def exists(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / "config.yaml").is_file()

    def require(self) -> None:
        """Raise RunError unless a run was begun here."""
        if not self.path.is_dir():
            raise RunError(
                f"{self.path} is not a run directory: no such directory; make one with `onnxnas optimize`"
            )
        if not self.exists:
            raise RunError(f"{self.path} is not a run directory: it has no config.yaml")

    def refuse_foreign(self) -> None:
        """Raise RunError when the path is taken by something that is not a run."""
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"{self.path} is a file; give -o a directory that does not exist yet")
        if self.path.is_dir() and not self.exists and any(p.name != ".lock" for p in self.path.iterdir()):
            raise RunError(f"{self.path} holds files but no run; give -o a directory that does not exist yet")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Own the directory. A second owner gets EnvironmentProblem naming the first one's process id.

        The lock is the kernel's, so it goes with its owner however that ends.
        """
        self.refuse_foreign()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise EnvironmentProblem(f"cannot write to {self.path}: {error.strerror}") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
                raise EnvironmentProblem(
                    f"{self.path} is in use by process {owner}; wait for it or use another directory"
                ) from error
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(descriptor)

    # stages

    def marker(self, stage: str) -> dict[str, Any] | None:
        """What a complete stage left: {"seconds", "files": {name: sha256}, ...}; None while it is not complete."""
        path = self.path / "stages" / f"{stage}.json"
        return dict(files.read_json(path)) if path.is_file() else None

    def finish(self, stage: str, seconds: float, outputs: tuple[str, ...], **facts: Any) -> None:
        """Mark a stage complete; `outputs` are file names under RUN whose digests are recorded."""
        body = {
            "stage": stage,
            "seconds": round(seconds, 3),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "files": {name: files.sha256(self.path / name) for name in outputs},
            **facts,
        }
        files.write_json(self.path / "stages" / f"{stage}.json", body)

    def verify(self, stage: str) -> dict[str, Any]:
        """The marker of a stage that must be complete and undamaged. Raises RunError naming what is not."""
        marker = self.marker(stage)
        if marker is None:
            raise RunError(
                f"{self.path}: stage '{stage}' is not complete; `onnxnas resume {self.path}` continues it"
            )
        for name, digest in marker["files"].items():
            path = self.path / name
            if not path.is_file():
                raise RunError(
                    f"{path} is missing; it was written by stage '{stage}', which has to be run again"
                )
            if files.sha256(path) != digest:
                raise RunError(f"{path} was changed since stage '{stage}' wrote it; run that stage again")
        return marker

    def forget(self, stage: str, *, keep: Sequence[str] = ()) -> None:
        """Undo a stage and all later ones, so that they run again from what is before them and these outputs.

        Its plan goes last: when this is interrupted, what is left of the outputs is not taken for a later plan's.
        """
        for later in STAGES[STAGES.index(stage) :]:
            (self.path / "stages" / f"{later}.json").unlink(missing_ok=True)
            for name in _OUTPUTS[later]:
                path = self.path / name
                if name in keep:
                    continue
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
            (self.path / "stages" / f"{later}.plan.json").unlink(missing_ok=True)

    def plan(self, stage: str) -> dict[str, Any] | None:
        """The recorded decision of a stage, or None."""
        path = self.path / "stages" / f"{stage}.plan.json"
        return dict(files.read_json(path)) if path.is_file() else None

    def decide(self, stage: str, plan: Mapping[str, Any]) -> dict[str, Any]:
        """Record a decision before acting on it."""
        files.write_json(self.path / "stages" / f"{stage}.plan.json", dict(plan))
        return dict(plan)

    def log(self, line: str) -> None:
        """Append a line with the time to log.txt."""
        with open(self.path / "log.txt", "a", encoding="utf-8") as stream:
            stream.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")
