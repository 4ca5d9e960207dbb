"""How the search is doing, as plain values; the command line draws them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from onnxnas.search.front import Frame, feasible, hypervolume, minimised, non_dominated
from onnxnas.search.settings import SearchSettings
from onnxnas.types import Objective, Trial


@dataclass(frozen=True)
class Progress:
    """After a trial. `hypervolume` is None until the first generation has set the scale.

    `best` is, among the trials within the limits, the best one in the first objective that has no limit
    itself (the first objective where all have one). `eta` is in seconds, for what is left of the budget
    of trials or of time, whichever ends first.
    """

    trials: int
    of: int
    failed: int
    trials_per_second: float
    front: int
    hypervolume: float | None
    best: Trial | None
    seconds: float
    eta: float | None


class ProgressMeter:
    """Follows a search trial by trial; keeps only the front.

    The hypervolume's frame is the box around the first `population` trials, then never changes, so that
    figures of one run can be compared with each other and a resumed run repeats them.
    """

    def __init__(self, objectives: Sequence[Objective], settings: SearchSettings) -> None:
        self._objectives = objectives
        self._settings = settings
        self._judge = next((o for o in objectives if o.limit is None), objectives[0])
        self._first: list[Trial] = []
        self._frame: Frame | None = None
        self._front: list[Trial] = []
        self._best: Trial | None = None
        self._trials = self._failed = self._new = 0
        self._spent = 0.0
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Spent on the study: recorded trials of earlier processes, and all the time in this one."""
        return self._spent + time.monotonic() - self._started

    def replay(self, trial: Trial, earlier: bool = True) -> None:
        """Counts a trial that another process made, earlier or while this one was at work."""
        self._spent += trial.seconds if earlier else 0.0
        self._count(trial)

    def record(self, trial: Trial) -> Progress:
        """Counts a trial made now."""
        self._new += 1
        self._count(trial)
        rows = minimised(self._front, self._objectives)
        elapsed = time.monotonic() - self._started
        rate = self._new / elapsed if elapsed > 0 else 0.0
        return Progress(
            trials=self._trials,
            of=self._settings.max_trials,
            failed=self._failed,
            trials_per_second=rate,
            front=len(self._front),
            hypervolume=None if self._frame is None else hypervolume(rows, self._frame),
            best=self._best,
            seconds=self.seconds,
            eta=self._eta(rate),
        )

    def _count(self, trial: Trial) -> None:
        self._trials += 1
        self._failed += trial.status != "ok"
        if self._frame is None:
            self._first.append(trial)
            if len(self._first) >= self._settings.population:
                self._frame = Frame.of(self._first, self._objectives)
        if not feasible(trial, self._objectives):
            return
        candidates = [*self._front, trial]
        keep = non_dominated(minimised(candidates, self._objectives))
        self._front = [t for t, kept in zip(candidates, keep, strict=True) if kept]
        name, sign = self._judge.name, 1.0 if self._judge.maximise else -1.0
        if self._best is None or sign * trial.values[name] > sign * self._best.values[name]:
            self._best = trial

    def _eta(self, rate: float) -> float | None:
        if rate <= 0:
            return None
        left = max(self._settings.max_trials - self._trials, 0) / rate
        if self._settings.max_seconds is not None:
            left = min(left, max(self._settings.max_seconds - self.seconds, 0.0))
        return left
