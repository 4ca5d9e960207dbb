"""The search loop: ask, evaluate, record, tell.

Resuming is replaying. A fresh algorithm is asked again from the start; a candidate that the study already
has is told its recorded result instead of being evaluated. As an algorithm's proposals depend on nothing but
its seed and what it was told, an interrupted and resumed search proposes the same candidates as one that
was left alone.

Sharing is the same: every process that runs the same search on the same storage proposes the same candidates,
evaluates those that no other has claimed, and is told the others' results.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from onnxnas.errors import CheckFailed, ConfigError, EnvironmentProblem, Interrupted, ModelError, OnnxnasError
from onnxnas.search.algorithm import make_algorithm
from onnxnas.search.evaluator import Evaluator
from onnxnas.search.predictors import Round
from onnxnas.search.prior import Prior
from onnxnas.search.problem import Genotype, Hint, Problem, Space
from onnxnas.search.progress import Progress, ProgressMeter
from onnxnas.search.settings import SearchSettings
from onnxnas.search.study import Record, Study, identity
from onnxnas.types import Objective, Subnet, Trial

log = logging.getLogger(__name__)

_PATIENCE = 0.2  # seconds between two looks at what other processes have claimed
REPEATS = 1000
"""Known candidates in a row after which the algorithm is taken to have nothing new."""


def run(
    space: Space,
    evaluator: Evaluator,
    objectives: Sequence[Objective],
    settings: SearchSettings,
    storage_url: str,
    seed: int,
    on_trial: Callable[[Trial, Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    *,
    prior: Prior | None = None,
    hints: Mapping[str, Hint] | None = None,
    on_round: Callable[[Round], None] | None = None,
    study_name: str = "search",
) -> list[Trial]:
    """Searches until the budget is spent or nothing new is left; continues the study if there is one.

    Several processes may do so at once, see the head of this module; all return the same trials.

    Every evaluated candidate is in the study before the next one starts. `on_trial` is called after each
    one evaluated now (not for replayed ones); `should_stop` is asked before each. `prior` is what an earlier
    search found out, `hints` what is known of objectives without measuring; an algorithm that predicts says how well
    to `on_round`, replayed rounds included. Returns the trials of the study, each candidate once, by number; failed
    ones included.

    Raises:
        RunError: the study is of another model, space, objectives, seed or settings, or is damaged.
        ConfigError: objectives or algorithm cannot be used.
        EnvironmentProblem, CheckFailed: `settings.max_failures` candidates in a row failed, with the
            diagnosis; they are tried again when the study is resumed.
        Interrupted: stopped from the keyboard.
    """
    _check_objectives(objectives)
    problem = Problem(space, objectives, prior, hints)
    algorithm = make_algorithm(problem, settings, np.random.default_rng(seed))
    rounds: Sequence[Round] = getattr(algorithm, "rounds", ())
    with Study.open(storage_url, study_name, problem, identity(problem, seed, settings.sequence())) as study:
        search = _Search(problem, evaluator, settings, study, on_trial, should_stop)
        repeats = 0
        try:
            while (left := settings.max_trials - len(search.done)) > 0 and repeats < REPEATS:
                batch = algorithm.ask(min(left, settings.population))
                before = len(search.done)
                trials = search.results(batch)
                if trials is None:
                    return search.trials()
                if not batch:
                    break
                repeats = repeats + len(batch) if len(search.done) == before else 0
                rows = [problem.minimised(t.values if t.status == "ok" else None) for t in trials]
                told = len(rounds)
                algorithm.tell(batch, np.array(rows))
                if on_round is not None:
                    for finished in rounds[told:]:
                        on_round(finished)
        except KeyboardInterrupt:
            raise Interrupted(
                f"search stopped from the keyboard: {study.next_number} trials are recorded; resume it"
            ) from None
        return search.trials()


class _Search:
    """The results known so far, and how new ones come about."""

    def __init__(
        self,
        problem: Problem,
        evaluator: Evaluator,
        settings: SearchSettings,
        study: Study,
        on_trial: Callable[[Trial, Progress], None] | None,
        should_stop: Callable[[], bool] | None,
    ) -> None:
        self._problem = problem
        self._evaluator = evaluator
        self._settings = settings
        self._study = study
        self._on_trial = on_trial
        self._should_stop = should_stop
        self._recorded = {r.trial.subnet.key(): r.trial for r in _usable(study.load(), settings)}
        self._earlier = study.next_number
        self._own: set[str] = set()
        self._meter = ProgressMeter(problem.objectives, settings)
        self._row: list[Trial] = []
        self.done: set[str] = set()

    def results(self, batch: Sequence[Genotype]) -> list[Trial] | None:
        """The trials of these candidates, new or recorded; None when the search is to stop.

        What other processes have claimed is waited for, or evaluated here when they give up.
        """
        todo = {self._problem.key(genotype): genotype for genotype in batch}
        while todo:
            left = len(todo)
            for key, genotype in list(todo.items()):
                if key not in self._recorded and self._ends():
                    return None
                if key in self._recorded or self._evaluated(key, genotype):
                    self._count(key)
                    del todo[key]
            if len(todo) == left:
                time.sleep(_PATIENCE)
        return [self._recorded[self._problem.key(genotype)] for genotype in batch]

    def _evaluated(self, key: str, genotype: Genotype) -> bool:
        """Whether there is a trial of this candidate now; not while another process is at it."""
        with self._study.claimed(key) as mine:
            self._learn()
            if key in self._recorded or not mine:
                return key in self._recorded
            subnet, number = self._problem.subnet(genotype), self._study.next_number
            self._study.add(evaluate(self._evaluator, subnet, number, self._problem.objectives), genotype)
            self._own.add(key)
            self._learn()
        return True

    def _learn(self) -> None:
        """Read what has been recorded since, here and elsewhere."""
        self._recorded.update((r.trial.subnet.key(), r.trial) for r in self._study.news())

    def _count(self, key: str) -> None:
        """Take note of a result, the first time."""
        if key in self.done:
            return
        self.done.add(key)
        trial = self._recorded[key]
        if key not in self._own:
            self._meter.replay(trial, earlier=trial.number < self._earlier)
            return
        progress = self._meter.record(trial)
        if self._on_trial is not None:
            self._on_trial(trial, progress)
        self._row = [] if trial.status == "ok" else [*self._row, trial]
        if len(self._row) >= self._settings.max_failures:
            raise diagnosis(self._row, any(t.status == "ok" for t in self._recorded.values()))

    def _ends(self) -> bool:
        """Whether time is up, or the caller wants to stop."""
        limit = self._settings.max_seconds
        late = limit is not None and self._meter.seconds >= limit
        return late or (self._should_stop is not None and self._should_stop())

    def trials(self) -> list[Trial]:
        """Everything in the study, each candidate once (the last evaluation counts), by number."""
        return sorted(self._recorded.values(), key=lambda t: t.number)


def evaluate(evaluator: Evaluator, subnet: Subnet, number: int, objectives: Sequence[Objective]) -> Trial:
    """One trial, whatever the evaluator does; see `Evaluator` for what becomes of exceptions."""
    start = time.monotonic()
    try:
        trial = evaluator.evaluate(subnet, number)
    except ModelError as error:
        trial = Trial(number, subnet, "refused", {}, error=str(error))
    except OnnxnasError:
        raise
    except MemoryError as error:
        trial = Trial(number, subnet, "oom", {}, error=f"MemoryError: {error}")
    except Exception as error:  # replaying would meet it again and again, so record it
        log.debug("candidate %d: %s", number, subnet.key(), exc_info=True)
        trial = Trial(number, subnet, "crashed", {}, error=f"{type(error).__name__}: {error}")
    trial = replace(trial, number=number, subnet=subnet, seconds=trial.seconds or time.monotonic() - start)
    if trial.status != "ok":
        return replace(trial, values={})
    for o in objectives:
        value = trial.values.get(o.name)
        if value is None or not math.isfinite(value):
            return replace(trial, status="invalid", values={}, error=f"objective {o.name!r} is {value}")
    return trial


def diagnosis(failures: Sequence[Trial], any_ok: bool) -> OnnxnasError:
    """Why the search cannot go on after these failures in a row."""
    counts = Counter(t.status for t in failures)
    said = ", ".join(f"{n} {status}" for status, n in counts.most_common())
    reason, times = Counter(t.error for t in failures).most_common(1)[0]
    text = (
        f"search stopped: {len(failures)} candidates in a row failed ({said}; trials {failures[0].number} to "
        f"{failures[-1].number}); {times} of them with: {reason or 'no message'}; "
    )
    if counts["refused"] + counts["invalid"] >= len(failures) / 2:
        return CheckFailed(text + "look at the model with `onnxnas check`, then resume")
    before = "earlier candidates worked, so something has changed" if any_ok else "none has worked yet"
    return EnvironmentProblem(text + f"{before}; look at this machine with `onnxnas doctor`, then resume")


def _usable(records: Sequence[Record], settings: SearchSettings) -> list[Record]:
    """The records, less a run of failures at the end that stopped the search: those get another chance."""
    end = len(records)
    while end and records[end - 1].trial.status != "ok":
        end -= 1
    return list(records[:end] if len(records) - end >= settings.max_failures else records)


def _check_objectives(objectives: Sequence[Objective]) -> None:
    names = [o.name for o in objectives]
    if not names:
        raise ConfigError("a search needs an objective: got none")
    if len(set(names)) < len(names):
        raise ConfigError(f"objectives must have different names: got {', '.join(names)}")
