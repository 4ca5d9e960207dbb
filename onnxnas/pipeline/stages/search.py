"""Stage 3: search sub-networks of the trained super-network; every trial is recorded as it ends."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from onnxnas import measure, search
from onnxnas.errors import EnvironmentProblem, ModelError, RunError
from onnxnas.pipeline import budget, build, files, finalists, hints, rounding, serving, warm
from onnxnas.pipeline.evaluate import CandidateEvaluator
from onnxnas.pipeline.line import Line
from onnxnas.pipeline.measuring import measurer
from onnxnas.pipeline.objectives import objectives
from onnxnas.types import Objective, Subnet, Trial

_PROBES = 2


def run(line: Line) -> None:
    """Write study.db and trials.csv; continues after the last recorded trial."""
    began = time.perf_counter()
    environment = str(measure.environment().get("digest", ""))
    with measurer(line) as measuring:
        plan = line.run.plan("search") or line.run.decide("search", _plan(line, measuring, environment))
        line.say(
            f"search: {plan['max_trials']} of 10^{line.space.size_log10:.0f} sub-networks, "
            f"baseline {plan['baseline_quality']:.2f} {line.metric.unit} on validation, "
            f"{plan['reference_ms']:.3f} ms, noise floor {100 * plan['noise_floor']:.1f} %"
        )
        trials, rounds = _searched(line, measuring, plan, environment)
    if rounds:
        files.write_json(line.run / "predictors.json", {"rounds": rounds})
    search.write_trials_csv(line.run / "trials.csv", trials, wanted(line), line.space.cost)
    failed = sum(trial.status != "ok" for trial in trials)
    if failed:
        line.say(f"search: {failed} of {len(trials)} candidates failed; trials.csv says how")
    spent = max(time.perf_counter() - began, sum(trial.seconds for trial in trials))
    line.run.finish("search", spent, ("trials.csv",), evaluations=len(trials), failed=failed)


def join(line: Line) -> dict[str, Any]:
    """Help the process that is searching this run until its candidates are evaluated; writes to study.db only.

    Returns {"stage", "evaluations"}, the number of trials in the study.

    Raises:
        RunError: no search has begun here, or it is complete.
        EnvironmentProblem: this machine is not like the one the search measures on.
    """
    plan = line.run.plan("search")
    if plan is None or line.run.marker("search") is not None:
        state = "has not begun" if plan is None else "is complete"
        raise RunError(f"{line.run.path}: its search {state}; join one while `onnxnas search` is at work")
    here = measure.environment()
    if foreign := measure.incomparable(files.read_json(line.run / "environment.json"), here):
        raise EnvironmentProblem(
            f"{line.run.path} is measured on another kind of machine ({'; '.join(foreign)}); "
            "figures of both cannot be compared: join from a machine like the first"
        )
    with measurer(line) as measuring:
        trials, _ = _searched(line, measuring, plan, str(here["digest"]))
    return {"stage": "search", "evaluations": len(trials)}


def _searched(
    line: Line, measuring: measure.Measurer, plan: Mapping[str, Any], environment: str
) -> tuple[list[Trial], list[dict[str, Any]]]:
    """The trials, and what predictors were worth in each round."""
    rounds: list[dict[str, Any]] = []

    def watch(trial: Trial, progress: search.Progress) -> None:
        text = _told(trial) if trial.status == "ok" else f"{trial.status}: {trial.error}"
        line.run.log(f"search: trial {trial.number}: {text}")
        line.step("search", progress.trials, progress.of, f"{text}, front {progress.front}")

    def judge(round: search.Round) -> None:
        rounds.append(_judged(round, line))
        line.say(_scores(rounds[-1]))

    config = line.config
    trials = search.run(
        serving.space(config, rounding.space(config, warm.space(line))),
        CandidateEvaluator(line, measuring, plan["reference_ms"], environment),
        _within_reach(line),
        config.search.settings(max_trials=plan["max_trials"], max_seconds=plan["max_seconds"]),
        search.sqlite_url(line.run / "study.db"),
        config.seed,
        watch,
        prior=warm.prior(line),
        hints=hints.hints(line),
        on_round=judge,
    )
    return trials, rounds


def wanted(line: Line) -> tuple[Objective, ...]:
    """The objectives of this run with their limits, quality first."""
    return objectives(line.config.objectives, line.metric.unit, line.config.limits)


def _within_reach(line: Line) -> tuple[Objective, ...]:
    """The objectives, quality limited to what can become a finalist: no trials for networks that nobody may use."""
    quality, *others = wanted(line)
    return (dataclasses.replace(quality, limit=finalists.within_reach(line)), *others)


def _plan(line: Line, measuring: measure.Measurer, environment: str) -> dict[str, Any]:
    config = line.config
    latency = measuring.measure(line.baseline, protocol="short")
    if latency.status != "ok" or latency.baseline_p50 is None:
        raise EnvironmentProblem(f"the baseline cannot be measured ({latency.status}): {latency.error}")
    judge = build.InRuntime(measuring, line.baseline, line.data, "val", line.metric, config.search.val_limit)
    quality = judge.quality(line.baseline)
    reference = latency.baseline_p50.value
    evaluator = CandidateEvaluator(line, measuring, reference, environment)
    trials = config.search.max_trials
    limit = config.search.max_seconds
    seconds = budget.allowance(line, "search")
    began = time.perf_counter()
    hints.prepare(line, measuring, seconds)
    if seconds is not None:
        seconds -= time.perf_counter() - began
        limit = min(budget.PATIENCE * seconds, limit or math.inf)
        rng = np.random.default_rng([config.seed, 3])
        began = time.perf_counter()
        for number in range(_PROBES):
            with contextlib.suppress(ModelError):
                evaluator.evaluate(line.space.effective(line.space.random(rng)), number)
        each = (time.perf_counter() - began) / _PROBES
        each += hints.seconds_of_glances(line, line.space.effective(line.space.random(rng)))
        trials = max(min(config.search.population, trials), min(trials, int(seconds / each)))
    return {
        "max_trials": trials,
        "max_seconds": limit,
        "reference_ms": reference,
        "noise_floor": latency.noise_floor,
        "baseline_quality": quality,
        "maximal_quality": evaluator.quality(Subnet()),
    }


def _told(trial: Trial) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in trial.values.items() if name != "params")


def _judged(round: search.Round, line: Line) -> dict[str, Any]:
    """How well the predictors of a round said what its candidates turned out to be, by objective."""
    by_name = {
        objective.name: {"predictor": name, **dataclasses.asdict(score)}
        for objective, name, score in zip(wanted(line), round.names, round.scores, strict=True)
    }
    return {"fitted_to": round.measured, "objectives": by_name}


def _scores(round: Mapping[str, Any]) -> str:
    said = ", ".join(
        f"{name} {s['predictor']} MAPE {s['mape']:.2g} % Kendall {s['kendall']:.2f}"
        for name, s in round["objectives"].items()
    )
    return f"search: predictors fitted to {round['fitted_to']}, on what came next: {said}"
