"""Optuna's samplers behind our `Algorithm` contract.

| name | sampler |
|---|---|
| `gp` | Gaussian processes (Matern kernel), expected improvement of the hypervolume of what is within the limits |
| `tpe` | tree-structured Parzen estimators, multi-objective and multivariate (Ozaki et al., 2020) |
| `optuna-nsga2` | Optuna's NSGA-II, for comparison: it knows nothing of what a skipped block makes equal |

They propose one candidate at a time. A proposal that was judged before is told its result again, so that the sampler
learns that there is nothing to win; after `PATIENCE` of them, a neighbour of the last is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from onnxnas.search.front import Rows
from onnxnas.search.operators import mutate, spread_sample
from onnxnas.search.problem import Genotype, Problem
from onnxnas.search.quiet import quiet
from onnxnas.search.settings import SearchSettings

PATIENCE = 3
ATTEMPTS = 1000
NEAR = 50
"""Of the attempts to find something new, how many stay near the last proposal."""

MakeSampler = Callable[[int, int], BaseSampler]


def gp(problem: Problem, settings: SearchSettings, rng: np.random.Generator) -> Sampled:
    """Bayesian optimisation; random until a generation has been judged."""
    return Sampled(
        problem,
        rng,
        lambda seed, first: optuna.samplers.GPSampler(seed=seed, n_startup_trials=first),
        settings.population,
    )


def tpe(problem: Problem, settings: SearchSettings, rng: np.random.Generator) -> Sampled:
    """Parzen estimators; random until a generation has been judged."""

    def make(seed: int, first: int) -> BaseSampler:
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=first, multivariate=True)

    return Sampled(problem, rng, make, settings.population)


def optuna_nsga2(problem: Problem, settings: SearchSettings, rng: np.random.Generator) -> Sampled:
    """Optuna's own genetic search."""

    def make(seed: int, first: int) -> BaseSampler:
        return optuna.samplers.NSGAIISampler(
            seed=seed,
            population_size=first,
            crossover_prob=settings.crossover_probability,
            mutation_prob=settings.mutation_rate,
        )

    return Sampled(problem, rng, make, settings.population)


class Sampled:
    """An `Algorithm` out of `make(seed, candidates of the first generation)`."""

    def __init__(self, problem: Problem, rng: np.random.Generator, make: MakeSampler, first: int) -> None:
        self._problem, self._rng = problem, rng
        self._places = [int(i) for i in np.flatnonzero(problem.upper > 0)]
        self._distributions: dict[str, BaseDistribution] = {
            str(i): IntDistribution(0, int(problem.upper[i]))
            if problem.ordered[i]
            else CategoricalDistribution(range(int(problem.upper[i]) + 1))
            for i in self._places
        }
        with quiet():
            self._study = optuna.create_study(
                directions=["minimize"] * len(problem.objectives),
                sampler=make(int(rng.integers(2**31)), first),
            )
        self._known: dict[str, Rows | None] = {}  # None: asked for and not told yet
        self._pending: tuple[str, optuna.Trial | None] | None = None
        self._queue = problem.prior.best(problem, first // 2) if problem.prior else []

    def ask(self, n: int) -> list[Genotype]:
        if self._pending is not None:
            return []
        found = self._queued() or self._proposed() or self._nearby()
        if found is None:
            return []
        genotype, trial = found
        key = self._problem.key(genotype)
        self._known[key] = None
        self._pending = (key, trial)
        return [genotype]

    def tell(self, genotypes: Sequence[Genotype], objectives: Rows) -> None:
        for genotype, row in zip(genotypes, np.asarray(objectives, np.float64), strict=True):
            key = self._problem.key(genotype)
            self._known[key] = np.array(row)
            if self._pending is not None and key == self._pending[0]:
                trial, self._pending = self._pending[1], None
                if trial is not None:
                    self._conclude(trial, row)
                    continue
            self._add(genotype, row)

    def _queued(self) -> tuple[Genotype, None] | None:
        while self._queue:
            genotype = self._queue.pop(0)
            if self._problem.key(genotype) not in self._known:
                return genotype, None
        return None

    def _proposed(self) -> tuple[Genotype, optuna.Trial] | None:
        """What the sampler proposes, unless all of it is known."""
        if not self._places:
            return None
        for _ in range(PATIENCE):
            with quiet():
                trial = self._study.ask(self._distributions)
            self._last = self._genotype(trial.params)
            row = self._known.get(self._problem.key(self._last))
            if row is None:
                return self._last, trial
            self._conclude(trial, row)
        return None

    def _nearby(self) -> tuple[Genotype, None] | None:
        """Something new close to the last proposal, or else anywhere."""
        problem = self._problem
        genotype = self._last if self._places else np.zeros_like(problem.upper)
        for attempt in range(ATTEMPTS):
            if problem.key(genotype) not in self._known:
                return genotype, None
            drawn = (
                mutate(genotype, problem.upper, problem.ordered, self._rng)
                if attempt < NEAR
                else spread_sample(problem, self._rng)
            )
            genotype = problem.repair(drawn)
        return None

    def _genotype(self, params: dict[str, Any]) -> Genotype:
        genotype = np.zeros_like(self._problem.upper)
        for place in self._places:
            genotype[place] = params[str(place)]
        return self._problem.repair(genotype)

    def _conclude(self, trial: optuna.Trial, row: Rows) -> None:
        if not np.isfinite(row).all():
            self._study.tell(trial, state=TrialState.FAIL)
            return
        for name, missed in self._missed(row).items():
            trial.set_constraint(name, missed)
        with quiet():
            self._study.tell(trial, row.tolist())

    def _add(self, genotype: Genotype, row: Rows) -> None:
        """A candidate that the sampler did not propose."""
        if np.isfinite(row).all() and self._places:
            self._study.add_trial(
                optuna.trial.create_trial(
                    params={str(i): int(genotype[i]) for i in self._places},
                    distributions=self._distributions,
                    values=row.tolist(),
                    constraints=self._missed(row),
                )
            )

    def _missed(self, row: Rows) -> dict[str, float]:
        return {str(i): float(v) for i, v in enumerate(self._problem.violations(row[None])[0])}
