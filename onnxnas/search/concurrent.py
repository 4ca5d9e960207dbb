"""Search on predictors that are fitted again after every few measurements.

    measure a first generation
    repeat:  fit a predictor per objective to all that was measured
             evolve many generations on the predictors
             measure those that should enlarge the front most

(ConcurrentNAS / LINAS: Cummings et al., A hardware-aware framework for accelerating neural architecture search
across modalities, 2022. There the best of the inner search are taken in order; here each pick takes into account
what the picks before it add, by hypervolume.) Every candidate that is proposed is measured: predictions only decide
which.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxnas.search.evolution import Evolution
from onnxnas.search.features import Features
from onnxnas.search.front import Frame, most_volume, non_dominated
from onnxnas.search.nsga2 import nsga2
from onnxnas.search.predictors import Predictor, Score, fitted, score
from onnxnas.search.problem import Genotype, Problem
from onnxnas.search.settings import SearchSettings

Rows = NDArray[np.float64]

INNER_GENERATIONS = 20
INNER_POPULATION = 60
LEAST = 8  # measured candidates, below which nothing is predicted; candidates of a round


@dataclass(frozen=True)
class Round:
    """How well the predictors of one round said what the candidates picked by them turned out to be."""

    measured: int  # candidates that they were fitted to
    names: tuple[str, ...]
    scores: tuple[Score, ...]


class Concurrent:
    """An `Algorithm`. Rounds have half a population, at least 8.

    `rounds` tells how good the predictors of each round were.
    """

    def __init__(self, problem: Problem, settings: SearchSettings, rng: np.random.Generator) -> None:
        self._problem, self._settings, self._rng = problem, settings, rng
        self._features = Features(problem)
        self._known: dict[str, tuple[Genotype, Rows]] = {}
        self._waiting: deque[Genotype] = deque()
        self._open: set[str] = set()
        self._predicted: list[tuple[Genotype, Rows]] = []
        self._names: tuple[str, ...] = ()
        self._fitted_to = 0
        self.rounds: list[Round] = []

    def ask(self, n: int) -> list[Genotype]:
        if not self._waiting:
            if self._open:
                return []
            self._waiting.extend(self._next())
            self._open = {self._problem.key(g) for g in self._waiting}
        return [self._waiting.popleft() for _ in range(min(n, len(self._waiting)))]

    def tell(self, genotypes: Sequence[Genotype], objectives: Rows) -> None:
        for genotype, row in zip(genotypes, np.asarray(objectives, np.float64), strict=True):
            key = self._problem.key(genotype)
            self._known[key] = (np.array(genotype, np.int64), np.array(row))
            self._open.discard(key)
        if not self._open and self._predicted:
            self._look_back()

    def _look_back(self) -> None:
        """Compare the round's predictions with what was measured."""
        pairs = [(row, self._known[self._problem.key(g)][1]) for g, row in self._predicted]
        pairs = [(row, truth) for row, truth in pairs if np.isfinite(truth).all()]
        self._predicted = []
        if len(pairs) > 1:
            predicted, measured = (np.array(column) for column in zip(*pairs, strict=True))
            scores = tuple(score(predicted[:, i], measured[:, i]) for i in range(measured.shape[1]))
            self.rounds.append(Round(self._fitted_to, self._names, scores))

    def _next(self) -> list[Genotype]:
        able = [(g, row) for g, row in self._known.values() if np.isfinite(row).all()]
        if len(able) < max(LEAST, self._settings.population):
            return self._generation()
        genotypes, rows = [g for g, _ in able], np.array([row for _, row in able])
        features = self._features.of(genotypes)
        made = [fitted("auto", features, rows[:, i]) for i in range(rows.shape[1])]
        self._names, self._fitted_to = tuple(name for name, _ in made), len(able)
        found, predicted = self._evolved([model for _, model in made])
        chosen = self._picked(predicted, rows) if found else []
        self._predicted = [(found[i], predicted[i]) for i in chosen]
        return [found[i] for i in chosen]

    def _generation(self) -> list[Genotype]:
        """Of ordinary evolution, until there is enough to learn from."""
        inner = nsga2(self._problem, self._settings, self._rng)
        self._inform(inner)
        return inner.ask(self._settings.population)

    def _inform(self, inner: Evolution) -> None:
        if self._known:
            genotypes, rows = zip(*self._known.values(), strict=True)
            inner.tell(list(genotypes), np.array(rows))

    def _evolved(self, models: Sequence[Predictor]) -> tuple[list[Genotype], Rows]:
        """New candidates of a long evolution on predictions, with these."""
        settings = self._settings.model_copy(update={"population": INNER_POPULATION})
        inner = nsga2(self._problem, settings, np.random.default_rng(self._rng.integers(2**63)))
        self._inform(inner)
        found: list[Genotype] = []
        rows: list[Rows] = []
        for _ in range(INNER_GENERATIONS):
            batch = inner.ask(INNER_POPULATION)
            if not batch:
                break
            features = self._features.of(batch)
            predicted = np.stack([model.predict(features) for model in models], axis=1)
            inner.tell(batch, predicted)
            found += batch
            rows.append(predicted)
        return found, np.concatenate(rows) if rows else np.empty((0, len(models)))

    def _picked(self, predicted: Rows, measured: Rows) -> list[int]:
        """A round's candidates: each enlarges the front of the predicted ones most, given those before it."""
        count = max(LEAST, self._settings.population // 2)
        allowed = self._problem.violations(predicted).sum(axis=1) == 0
        fine = self._problem.violations(measured).sum(axis=1) == 0
        places = np.flatnonzero(allowed if allowed.any() else np.ones(len(predicted), bool))
        base = measured[fine] if fine.any() else measured
        everything = np.concatenate([base, predicted[places]])
        low, high = everything.min(axis=0), everything.max(axis=0)
        frame = Frame(tuple(low), tuple(np.where(high > low, high, low + 1.0) + 0.1 * (high - low)))
        places = _best_layers(predicted, places, 4 * count)
        return [int(places[i]) for i in most_volume(predicted[places], count, frame, base)]


def _best_layers(rows: Rows, places: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The first non-dominated layers of `rows[places]`, whole ones, until there are `count`."""
    left, taken = places, np.empty(0, np.int64)
    while left.size and taken.size < count:
        keep = non_dominated(rows[left])
        taken, left = np.concatenate([taken, left[keep]]), left[~keep]
    return taken
