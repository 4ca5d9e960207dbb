"""Any of pymoo's genetic algorithms behind our `Algorithm` contract.

pymoo selects parents and survivors (what makes NSGA-II NSGA-II); the first sample, the variation of
genotypes and the exclusion of candidates seen before are ours, because they know the search space.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from pymoo.core.evaluator import Evaluator as PymooEvaluator
from pymoo.core.population import Population
from pymoo.core.problem import Problem as PymooProblem
from pymoo.core.termination import NoTermination
from pymoo.problems.static import StaticProblem

from onnxnas.search.front import Rows
from onnxnas.search.operators import crossover, diagonals, mutate, otherwise, spread_sample
from onnxnas.search.problem import Genotype, Problem
from onnxnas.search.settings import SearchSettings

FAILED = 1e9
"""Constraint violation of a failed candidate: more than any missed limit."""
ATTEMPTS = 1000
"""Children in a row without anything new after which the space counts as exhausted."""
RELATED = 50
"""Of these, how many are made from parents before drawing at random instead."""


class Variation:
    """Makes new candidates, each once; takes the place of pymoo's mating.

    `selection` is a pymoo selection operator. `seen` holds the keys of all candidates made or told.
    """

    def __init__(
        self, problem: Problem, settings: SearchSettings, rng: np.random.Generator, selection: Any
    ) -> None:
        self._problem = problem
        self._settings = settings
        self._rng = rng
        self._selection = selection
        self.seen: set[str] = set()

    def first(self) -> list[Genotype]:
        """The first generation: what was best elsewhere, corners and diagonals of the space, and others.

        Among the corners is the original served otherwise, or with other numbers: that alone may be worth much.
        """
        problem, n = self._problem, self._settings.population
        largest, smallest = (problem.encode(s) for s in (problem.space.maximal(), problem.space.minimal()))
        corners = [largest, smallest, *otherwise(problem, largest)[: n // 2]]
        made: list[Genotype] = []
        known = problem.prior.best(problem, n // 2) if problem.prior else []
        for genotype in known + corners + diagonals(problem, max(1, n // 8)):
            if len(made) < n:
                self._take(genotype, made)
        self._fill(made, n)
        return made

    def do(self, _: Any, parents: Any, n_offsprings: int, *, algorithm: Any, **__: Any) -> Any:
        """pymoo's call: a population of n children of `parents`, fewer when nothing new is left."""
        made: list[Genotype] = []
        vain = 0
        while len(made) < n_offsprings and vain < RELATED and len(parents) > 1:
            pairs = self._selection.do(
                algorithm.problem, parents, n_offsprings - len(made), n_parents=2, to_pop=False,
                algorithm=algorithm, random_state=self._rng,
            )  # fmt: skip
            for a, b in pairs:
                vain = 0 if self._take(self._child(parents[a].X, parents[b].X), made) else vain + 1
        self._fill(made, n_offsprings)
        return Population.new(X=np.array(made)) if made else Population.empty()

    def _child(self, a: Genotype, b: Genotype) -> Genotype:
        problem, rng = self._problem, self._rng
        if rng.random() < self._settings.crossover_probability:
            a = crossover(a, b, problem.ordered, rng)
        return mutate(a, problem.upper, problem.ordered, rng, self._settings.mutation_rate)

    def _take(self, genotype: Genotype, made: list[Genotype]) -> bool:
        repaired = self._problem.repair(genotype)
        key = self._problem.key(repaired)
        if key in self.seen:
            return False
        self.seen.add(key)
        made.append(repaired)
        return True

    def _fill(self, made: list[Genotype], n: int) -> None:
        vain = 0
        while len(made) < n and vain < ATTEMPTS:
            vain = 0 if self._take(spread_sample(self._problem, self._rng), made) else vain + 1


class Evolution:
    """Generations of `settings.population` candidates; an `Algorithm`.

    `make` makes the pymoo algorithm; it is called with the objectives of the first generation (n x m, minimised)
    and pop_size, sampling, mating and eliminate_duplicates.
    A generation is handed out by `ask` in portions of any size and closed when all of it was told;
    candidates told without having been asked for join the generation that closes next.
    """

    def __init__(
        self,
        problem: Problem,
        settings: SearchSettings,
        rng: np.random.Generator,
        make: Callable[..., Any],
        selection: Any,
    ) -> None:
        self._problem = problem
        self._settings = settings
        self._rng = rng
        self._make = make
        self._variation = Variation(problem, settings, rng, selection)
        self._engine: Any = None
        self._generation: dict[str, Genotype] = {}
        self._waiting: deque[Genotype] = deque()
        self._told: dict[str, Rows] = {}
        self._others: dict[str, tuple[Genotype, Rows]] = {}

    def ask(self, n: int) -> list[Genotype]:
        if not self._waiting:
            if len(self._told) < len(self._generation):
                return []
            self._next_generation()
        return [self._waiting.popleft() for _ in range(min(n, len(self._waiting)))]

    def tell(self, genotypes: Sequence[Genotype], objectives: Rows) -> None:
        for genotype, row in zip(genotypes, np.asarray(objectives, dtype=np.float64), strict=True):
            key = self._problem.key(genotype)
            if key in self._generation:
                self._told[key] = row
            else:
                self._variation.seen.add(key)
                self._others[key] = (np.array(genotype, dtype=np.int64), row)

    def _next_generation(self) -> None:
        if self._generation:
            self._close_generation()
        if self._engine is None:
            made = self._variation.first()
        else:
            offspring = self._engine.ask()
            made = [] if offspring is None else [np.asarray(x, dtype=np.int64) for x in offspring.get("X")]
        self._generation = {self._problem.key(g): g for g in made}
        self._waiting = deque(made)
        self._told = {}

    def _close_generation(self) -> None:
        genotypes = [*self._generation.values(), *(g for g, _ in self._others.values())]
        rows = [*(self._told[k] for k in self._generation), *(row for _, row in self._others.values())]
        self._others = {}
        F, G = self._with_constraints(np.array(rows))
        if self._engine is None:
            self._engine = self._start(np.array(genotypes), F, G.shape[1])
            population = self._engine.ask()
        else:
            population = Population.new(X=np.array(genotypes))
        PymooEvaluator().eval(StaticProblem(self._engine.problem, F=F, G=G), population)
        self._engine.tell(infills=population)
        if len(self._engine.pop) > self._engine.pop_size:  # pymoo keeps all of the first generation
            self._engine.tell(infills=None)

    def _with_constraints(self, F: Rows) -> tuple[Rows, Rows]:
        """Finite objectives (n x m) and violations (n x (limits + 1)), the last of which is for failures."""
        failed = ~np.all(np.isfinite(F), axis=1)
        F = np.where(failed[:, None], F[~failed].max(axis=0, initial=0.0), F)
        G = np.concatenate([self._problem.violations(F), np.zeros((len(F), 1))], axis=1)
        G[failed, -1] = FAILED
        return F, G

    def _start(self, sample: Genotype, first: Rows, n_constraints: int) -> Any:
        engine = self._make(
            first,
            pop_size=self._settings.population,
            sampling=sample,
            mating=self._variation,
            eliminate_duplicates=False,
        )
        upper = self._problem.upper
        space = PymooProblem(
            n_var=len(upper), n_obj=first.shape[1], n_ieq_constr=n_constraints,
            xl=np.zeros(len(upper), dtype=np.int64), xu=upper, vtype=int,
        )  # fmt: skip
        engine.setup(space, termination=NoTermination())
        engine.random_state = self._rng
        return engine
