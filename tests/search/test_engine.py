"""The loop: budget, failures, interruption at any moment, and that resuming repeats the sequence."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxnas.errors import CheckFailed, ConfigError, EnvironmentProblem, Interrupted, ModelError, RunError
from onnxnas.search import Genotype, Problem, Progress, SearchSettings, run, sqlite_url
from onnxnas.search.engine import evaluate
from onnxnas.types import Objective, Subnet, Trial
from tests.search.search_fakes import NETWORK, FakeGraph, FakeSpace, NetworkEvaluator

SPACE = FakeSpace(blocks=4, free=9, steps=6)


def settings(**more: Any) -> SearchSettings:
    return SearchSettings(**{"population": 8, "max_trials": 24, "max_failures": 5, **more})


def keys(trials: list[Trial]) -> list[str]:
    return [t.subnet.key() for t in trials]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[Trial]:
    """An uninterrupted search, with failures in it."""
    place = sqlite_url(tmp_path_factory.mktemp("whole") / "study.db")
    return run(SPACE, NetworkEvaluator(SPACE, BROKEN), NETWORK, settings(), place, seed=1)


BROKEN = {5: "crashed", 11: "timeout", 12: "invalid", 20: "oom"}


def test_every_candidate_once_within_the_budget(whole: list[Trial]) -> None:
    assert [t.number for t in whole] == list(range(24))
    assert len(set(keys(whole))) == 24
    assert whole[0].subnet == SPACE.maximal()
    assert {t.number: t.status for t in whole if t.status != "ok"} == BROKEN
    assert all(not t.values for t in whole if t.status != "ok")


def test_the_evaluator_gets_effective_subnetworks(url: str) -> None:
    evaluator = NetworkEvaluator(SPACE)
    run(SPACE, evaluator, NETWORK, settings(), url, seed=2)
    assert any(s.skip for s in evaluator.seen)
    for subnet in evaluator.seen:
        assert SPACE.effective(SPACE.repair(subnet)) == subnet


@pytest.mark.parametrize("stop_at", [1, 8, 13, 21])
def test_stopped_and_resumed_is_the_same_search(whole: list[Trial], url: str, stop_at: int) -> None:
    first = NetworkEvaluator(SPACE, BROKEN)
    part = run(SPACE, first, NETWORK, settings(), url, seed=1, should_stop=lambda: len(first.seen) >= stop_at)
    assert keys(part) == keys(whole)[:stop_at]
    second = NetworkEvaluator(SPACE, BROKEN)
    resumed = run(SPACE, second, NETWORK, settings(), url, seed=1)
    assert resumed == whole
    assert [s.key() for s in second.seen] == keys(whole)[stop_at:]


def test_a_budget_can_be_spent_in_portions(whole: list[Trial], url: str) -> None:
    for budget in (3, 16, 24):
        trials = run(
            SPACE, NetworkEvaluator(SPACE, BROKEN), NETWORK, settings(max_trials=budget), url, seed=1
        )
        assert trials == whole[:budget]
    evaluator = NetworkEvaluator(SPACE)
    assert run(SPACE, evaluator, NETWORK, settings(max_trials=10), url, seed=1) == whole
    assert not evaluator.seen


@dataclass
class Interrupting:
    """An evaluator that is interrupted from the keyboard in the middle of candidate `at`."""

    at: int
    inner: NetworkEvaluator = field(default_factory=lambda: NetworkEvaluator(SPACE, BROKEN))

    def evaluate(self, subnet: Subnet, number: int) -> Trial:
        if number == self.at:
            signal.raise_signal(signal.SIGINT)
        return self.inner.evaluate(subnet, number)


def test_ctrl_c_keeps_what_was_recorded(whole: list[Trial], url: str) -> None:
    with pytest.raises(Interrupted, match="10 trials are recorded") as caught:
        run(SPACE, Interrupting(10), NETWORK, settings(), url, seed=1)
    assert caught.value.exit_code == 4
    assert run(SPACE, NetworkEvaluator(SPACE, BROKEN), NETWORK, settings(), url, seed=1) == whole


VICTIM = """
import os, signal, sys
sys.path.insert(0, {root!r})
import sqlalchemy.event, sqlalchemy.orm
from tests.search.search_fakes import NETWORK, FakeSpace, NetworkEvaluator
from onnxnas.search import SearchSettings, run
space = FakeSpace(blocks=4, free=9, steps=6)
evaluator = NetworkEvaluator(space, {broken!r})
def die(*_):
    if len(evaluator.seen) == 13:
        os.kill(os.getpid(), signal.SIGKILL)
if {when!r} == "before the commit":
    sqlalchemy.event.listen(sqlalchemy.orm.Session, "before_commit", die)
settings = SearchSettings(population=8, max_trials=24, max_failures=5)
run(space, evaluator, NETWORK, settings, {url!r}, 1, die)
"""


@pytest.mark.parametrize(("when", "recorded"), [("before the commit", 12), ("after it", 13)])
def test_kill_9_loses_nothing_recorded(
    whole: list[Trial], url: str, root: Path, when: str, recorded: int
) -> None:
    code = VICTIM.format(root=str(root), broken=BROKEN, url=url, when=when)
    victim = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert victim.returncode == -signal.SIGKILL, victim.stderr
    evaluator = NetworkEvaluator(SPACE, BROKEN)
    assert run(SPACE, evaluator, NETWORK, settings(), url, seed=1) == whole
    assert len(evaluator.seen) == 24 - recorded


@dataclass
class Together:
    """An evaluator that gets its first candidate at the same time as another search does."""

    barrier: threading.Barrier
    inner: NetworkEvaluator = field(default_factory=lambda: NetworkEvaluator(SPACE))

    def evaluate(self, subnet: Subnet, number: int) -> Trial:
        if not self.inner.seen:
            self.barrier.wait(60)
        time.sleep(0.01)
        return self.inner.evaluate(subnet, number)


def test_searches_on_one_study_share_the_candidates(url: str, tmp_path: Path) -> None:
    alone = run(SPACE, NetworkEvaluator(SPACE), NETWORK, settings(), sqlite_url(tmp_path / "alone.db"), 1)
    barrier = threading.Barrier(2)
    evaluators = [Together(barrier), Together(barrier)]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda e: run(SPACE, e, NETWORK, settings(), url, seed=1), evaluators))
    assert found[0] == found[1]
    assert {t.subnet.key(): t.values for t in found[0]} == {t.subnet.key(): t.values for t in alone}
    seen = [[s.key() for s in e.inner.seen] for e in evaluators]
    assert all(seen)
    assert sorted(seen[0] + seen[1]) == sorted(keys(alone))


def test_who_stops_leaves_the_rest_to_the_other(url: str) -> None:
    barrier = threading.Barrier(2)
    lazy, busy = Together(barrier), Together(barrier)

    def leave() -> bool:
        return len(lazy.inner.seen) == 1

    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(run, SPACE, lazy, NETWORK, settings(), url, 1, None, leave),
            pool.submit(run, SPACE, busy, NETWORK, settings(), url, 1),
        ]
        part, whole = (job.result() for job in jobs)
    assert len(whole) == 24
    assert len(lazy.inner.seen) == 1
    assert len(busy.inner.seen) == 23
    assert [t for t in whole if t in part] == part


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"space": FakeSpace(blocks=4, free=8, steps=6)}, "space: there .{12}, here "),
        ({"space": FakeSpace(4, 9, 6, FakeGraph("b" * 64))}, "model: there aaaaaaaaaaaa, here bbbbbbbbbbbb"),
        (
            {"objectives": NETWORK[:1]},
            r"objectives: .*minimise latency \[ms\], here maximise quality \[%\]\)",
        ),
        ({"objectives": (Objective("quality", "%", True, 90.0), NETWORK[1])}, "quality .%. >= 90"),
        ({"seed": 2}, "seed: there 1, here 2"),
        ({"settings": settings(population=9)}, "settings.population: there 8, here 9"),
        ({"settings": settings(algorithm="random")}, "settings.algorithm: there nsga2, here random"),
    ],
)
def test_a_study_of_something_else_is_not_resumed(url: str, change: dict[str, Any], said: str) -> None:
    evaluator = NetworkEvaluator(SPACE)

    def go(**change: Any) -> list[Trial]:
        asked = {
            "space": SPACE,
            "objectives": NETWORK,
            "settings": settings(max_trials=3),
            "seed": 1,
            **change,
        }
        return run(evaluator=evaluator, storage_url=url, **asked)

    go()
    with pytest.raises(RunError, match=said) as caught:
        go(**change)
    assert str(caught.value).count(": there") == (2 if "model" in said else 1)
    assert "\n" not in str(caught.value)
    assert len(evaluator.seen) == 3


def test_failures_in_a_row_stop_with_a_diagnosis_and_get_another_chance(url: str) -> None:
    broken: dict[int, Any] = dict.fromkeys(range(10, 99), "crashed") | {11: "timeout"}
    with pytest.raises(EnvironmentProblem) as caught:
        run(SPACE, NetworkEvaluator(SPACE, broken), NETWORK, settings(), url, seed=1)
    said = str(caught.value)
    assert "5 candidates in a row failed (4 crashed, 1 timeout; trials 10 to 14)" in said
    assert "made to fail" in said
    assert "something has changed" in said

    evaluator = NetworkEvaluator(SPACE)
    trials = run(SPACE, evaluator, NETWORK, settings(), url, seed=1)
    assert len(trials) == 24
    assert len(set(keys(trials))) == 24
    assert all(t.status == "ok" for t in trials)
    assert [t.number for t in trials] == [*range(10), *range(15, 29)]
    assert len(evaluator.seen) == 14
    never_broken = run(SPACE, NetworkEvaluator(SPACE), NETWORK, settings(), url, seed=1)
    assert never_broken == trials


@pytest.mark.parametrize("status", ["refused", "invalid"])
def test_refusals_in_a_row_point_at_the_model(url: str, status: str) -> None:
    broken = dict.fromkeys(range(99), status)
    with pytest.raises(CheckFailed, match=r"5 candidates in a row failed \(5 .*onnxnas check"):
        run(SPACE, NetworkEvaluator(SPACE, broken), NETWORK, settings(), url, seed=1)


def test_failures_not_in_a_row_do_not_stop(url: str) -> None:
    broken = {i: "crashed" for i in range(24) if i % 5}
    assert len(run(SPACE, NetworkEvaluator(SPACE, broken), NETWORK, settings(), url, seed=1)) == 24


@dataclass
class Clock:
    """Stands for the module `time`: every evaluation takes 2 seconds."""

    evaluator: NetworkEvaluator

    def monotonic(self) -> float:
        return 2.0 * len(self.evaluator.seen)


def test_time_budget_counts_earlier_parts(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def go(**more: Any) -> int:
        evaluator = NetworkEvaluator(SPACE)  # its trials say 0.01 s
        monkeypatch.setattr("onnxnas.search.progress.time", Clock(evaluator))
        run(SPACE, evaluator, NETWORK, settings(**more), url, seed=1)
        return len(evaluator.seen)

    assert go(max_seconds=9.0) == 5
    assert go(max_trials=10) == 5
    assert go(max_seconds=0.09) == 0
    assert go(max_seconds=4.2) == 3


def test_an_exhausted_space_ends_the_search(url: str) -> None:
    space = FakeSpace(blocks=2, free=1, steps=2)
    trials = run(space, NetworkEvaluator(space), NETWORK, settings(), url, seed=1)
    assert len(trials) == 16


class Repeating:
    """Always the same two candidates."""

    def __init__(self, problem: Problem, settings: SearchSettings, rng: np.random.Generator) -> None:
        self._two = [problem.encode(problem.space.maximal()), problem.encode(problem.space.minimal())]
        self.told: list[NDArray[np.float64]] = []

    def ask(self, n: int) -> list[Genotype]:
        return self._two

    def tell(self, genotypes: list[Genotype], objectives: NDArray[np.float64]) -> None:
        self.told.append(objectives)
        np.testing.assert_array_equal(objectives, self.told[0])


def test_known_candidates_are_told_their_recorded_results(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "repeating_module", sys.modules[__name__])
    evaluator = NetworkEvaluator(SPACE)
    trials = run(SPACE, evaluator, NETWORK, settings(algorithm="repeating_module:Repeating"), url, seed=1)
    assert len(trials) == len(evaluator.seen) == 2


def test_progress_after_every_trial(url: str) -> None:
    seen: list[tuple[Trial, Progress]] = []
    run(SPACE, NetworkEvaluator(SPACE, BROKEN), NETWORK, settings(), url, 1, lambda *x: seen.append(x))
    assert [p.trials for _, p in seen] == list(range(1, 25))
    assert seen[-1][1].failed == len(BROKEN)
    assert seen[-1][1].of == 24
    assert seen[-1][1].eta == 0


def test_a_search_without_objectives_or_with_equal_ones_is_refused(url: str) -> None:
    for wrong in ((), (NETWORK[0], NETWORK[0])):
        with pytest.raises(ConfigError, match="objective"):
            run(SPACE, NetworkEvaluator(SPACE), wrong, settings(), url, seed=1)


@dataclass
class Faulty:
    """An evaluator that does `what` instead of its work."""

    what: Callable[[Subnet, int], Trial]

    def evaluate(self, subnet: Subnet, number: int) -> Trial:
        return self.what(subnet, number)


def _raise(error: BaseException) -> Callable[[Subnet, int], Trial]:
    def what(subnet: Subnet, number: int) -> Trial:
        raise error

    return what


def _say(**values: float) -> Callable[[Subnet, int], Trial]:
    return lambda subnet, number: Trial(number, subnet, "ok", values)


@pytest.mark.parametrize(
    ("what", "status", "said"),
    [
        (_raise(ModelError("no way")), "refused", "no way"),
        (_raise(KeyError("x")), "crashed", "KeyError: 'x'"),
        (_raise(MemoryError()), "oom", "MemoryError"),
        (_say(quality=1.0), "invalid", "'latency' is None"),
        (_say(quality=float("nan"), latency=1.0), "invalid", "'quality' is nan"),
        (_say(quality=1.0, latency=float("inf")), "invalid", "'latency' is inf"),
    ],
)
def test_whatever_an_evaluator_does_is_a_status(
    what: Callable[[Subnet, int], Trial], status: str, said: str
) -> None:
    trial = evaluate(Faulty(what), Subnet(frozenset({"b1"})), 7, NETWORK)
    assert (trial.number, trial.subnet, trial.status) == (7, Subnet(frozenset({"b1"})), status)
    assert said in trial.error
    assert not trial.values
    assert trial.seconds > 0


@pytest.mark.parametrize("error", [EnvironmentProblem("gone"), RunError("locked"), KeyboardInterrupt()])
def test_some_errors_end_the_search(error: BaseException) -> None:
    with pytest.raises(type(error)):
        evaluate(Faulty(_raise(error)), Subnet(), 0, NETWORK)
