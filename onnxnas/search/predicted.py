"""Search on predictors: measure a little, predict a lot, measure what is predicted to be best.

    measure some candidates
    repeat:  fit a predictor per objective to all that was measured
             evolve many generations on the predictors
             measure those that should enlarge the front most

| name | begins with | each round measures |
|---|---|---|
| `concurrent` | two thirds of a generation | a third of one, so that predictors are fitted again often |
| `full` | `samples` candidates | the whole front as predicted |

(ConcurrentNAS / LINAS and the full search before it: Cummings et al., A hardware-aware framework for accelerating
neural architecture search across modalities, 2022. There the best of the inner search are taken in order; here each
pick takes into account what the picks before it add, by hypervolume.) With reference points half of a round's picks
are those predicted to be best for one who wants such a point (`aims.nearest`), in equal shares. Every candidate that
is proposed is measured: predictions only decide which. With a hint of every objective (`problem.Hint`), or a prior
(`search.prior`), predictors start from what these say, so that a few measurements are enough. With a prior its best are
measured first, and then make half of every round: they are known to be good there, while those that are predicted to be
better are in part those that predictors think too well of. Costly hints are asked of the best as predicted, a few for
each that is measured, and the choice is made again among those.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from onnxnas.search.aims import nearest, reference_points
from onnxnas.search.evolution import Evolution
from onnxnas.search.features import Features
from onnxnas.search.front import Frame, Rows, best_layers, most_volume, non_dominated
from onnxnas.search.genetic import nsga2
from onnxnas.search.operators import spread_sample
from onnxnas.search.predictors import Fitted, Round, score
from onnxnas.search.problem import Genotype, Problem
from onnxnas.search.settings import SearchSettings

INNER_GENERATIONS = 20
GLANCED_GENERATIONS = 60  # the same, where costly hints check what is found
INNER_POPULATION = 60
LEAST = 8  # measured candidates, below which nothing is predicted; candidates of a round
FIRST_LOOKS = 64  # candidates that costly hints are asked of before anything is predicted
LOOKS = 4  # the same, for each candidate of a round


def concurrent(problem: Problem, settings: SearchSettings, rng: np.random.Generator) -> PredictedSearch:
    """Predictors are fitted again after every few measurements."""
    third = max(LEAST, settings.population // 3)
    return PredictedSearch(problem, settings, rng, 2 * third, third)


def full(problem: Problem, settings: SearchSettings, rng: np.random.Generator) -> PredictedSearch:
    """Predictors first, then the front that they say."""
    return PredictedSearch(problem, settings, rng, settings.samples, None)


class PredictedSearch:
    """An `Algorithm`. `first` candidates are measured before anything is predicted (`LEAST` with a prior), then
    `each` a round; None: as many as there are on the front as predicted.

    `rounds` tells how good the predictors of each round were.
    """

    def __init__(
        self,
        problem: Problem,
        settings: SearchSettings,
        rng: np.random.Generator,
        first: int,
        each: int | None,
    ) -> None:
        self._problem, self._settings, self._rng = problem, settings, rng
        self._features = Features(problem)
        told = self._features.prior is not None or len(self._features.hints) == len(problem.objectives)
        self._aims = reference_points(problem, settings)
        self._first = LEAST if told else max(LEAST, first)
        self._each = each
        best = problem.prior.best(problem, len(problem.prior)) if problem.prior is not None else []
        self._remembered = {problem.key(genotype): genotype for genotype in best}
        self._known: dict[str, tuple[Genotype, Rows]] = {}
        self._waiting: deque[Genotype] = deque()
        self._open: set[str] = set()
        self._predicted: list[tuple[Genotype, Rows]] = []
        self._names: tuple[str, ...] = ()
        self._fitted_to = 0
        self._looked = False
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
        remembered = [genotype for key, genotype in self._remembered.items() if key not in self._known]
        able = [(g, row) for g, row in self._known.values() if np.isfinite(row).all()]
        rows = np.array([row for _, row in able]).reshape(len(able), len(self._problem.objectives))
        if len(able) >= self._first:
            self._look([g for g, _ in able])
            features = self._features.of([g for g, _ in able])
            made = [self._features.fitted(i, features, rows[:, i]) for i in range(rows.shape[1])]
            self._names = tuple(name for name, _ in made)
            models: Sequence[Fitted] = [model for _, model in made]
        elif not self._known and remembered:
            return remembered[: self._first]
        elif self._features.prior is not None:
            self._names, models = ("prior",) * rows.shape[1], self._features.prior
        else:
            return self._generation()
        self._fitted_to = len(able)
        found, predicted = self._evolved(models)
        if self._features.costly and found:
            near = self._picked(predicted, rows, LOOKS)
            found = [found[i] for i in near]
            self._look(found)
            predicted = _predictions(models, self._features.of(found))
        chosen = self._picked(predicted, rows) if found else []
        old = remembered[: len(chosen) // 2]
        keys = {self._problem.key(genotype) for genotype in old}
        new = [i for i in chosen if self._problem.key(found[i]) not in keys][: len(chosen) - len(old)]
        self._predicted = [(found[i], predicted[i]) for i in new]
        return [*old, *(found[i] for i in new)]

    def _look(self, genotypes: Sequence[Genotype]) -> None:
        """Ask the costly hints of these, the first time of others from all over the space, too."""
        if self._features.costly and not self._looked:
            self._looked = True
            rng = np.random.default_rng(self._rng.integers(2**63))
            spread = [self._problem.repair(spread_sample(self._problem, rng)) for _ in range(FIRST_LOOKS)]
            genotypes = [*genotypes, *spread]
        self._features.look(genotypes)

    def _generation(self) -> list[Genotype]:
        """Of ordinary evolution, until there is enough to learn from."""
        settings = self._settings.model_copy(update={"population": self._first})
        inner = nsga2(self._problem, settings, self._rng)
        self._inform(inner)
        return inner.ask(self._first)

    def _inform(self, inner: Evolution) -> None:
        if self._known:
            genotypes, rows = zip(*self._known.values(), strict=True)
            inner.tell(list(genotypes), np.array(rows))

    def _evolved(self, models: Sequence[Fitted]) -> tuple[list[Genotype], Rows]:
        """New candidates of long evolutions on predictions, with these: within the limits, and within every point's."""
        settings = self._settings.model_copy(update={"population": INNER_POPULATION})
        found: dict[str, tuple[Genotype, Rows]] = {}
        for problem in (self._problem, *(self._problem.limited(point) for point in self._aims)):
            inner = nsga2(problem, settings, np.random.default_rng(self._rng.integers(2**63)))
            self._inform(inner)
            for _ in range(GLANCED_GENERATIONS if self._features.costly else INNER_GENERATIONS):
                batch = inner.ask(INNER_POPULATION)
                if not batch:
                    break
                predicted = _predictions(models, self._features.of(batch))
                inner.tell(batch, predicted)
                found |= {problem.key(g): (g, row) for g, row in zip(batch, predicted, strict=True)}
        rows = np.array([row for _, row in found.values()]).reshape(len(found), len(models))
        return [genotype for genotype, _ in found.values()], rows

    def _picked(self, predicted: Rows, measured: Rows, times: int = 1) -> list[int]:
        """A round's candidates, or so many times as many.

        Half of them are near the reference points, if there are any; each other enlarges the predicted front most.
        """
        allowed = self._problem.violations(predicted).sum(axis=1) == 0
        fine = self._problem.violations(measured).sum(axis=1) == 0
        places = np.flatnonzero(allowed if allowed.any() else np.ones(len(predicted), bool))
        base = measured[fine] if fine.any() else measured
        count = self._each
        if count is None:
            count = min(max(LEAST, int(non_dominated(predicted[places]).sum())), 2 * INNER_POPULATION)
        count *= times
        frame = Frame.around(np.concatenate([base, predicted[places]]))
        aimed = self._aimed(predicted, count // 2)
        base = np.concatenate([base, predicted[aimed]])
        rest = places[best_layers(predicted[places], 4 * count)]
        wide = most_volume(predicted[rest], count - len(aimed), frame, base)
        return list(dict.fromkeys(int(i) for i in [*aimed, *rest[wide]]))

    def _aimed(self, rows: Rows, most: int) -> list[int]:
        """Up to `most` of the rows, for every reference point as many, whatever the limits are."""
        each = -(-most // max(1, len(self._aims)))
        chosen = [i for point in self._aims for i in nearest(rows, point, each)]
        return list(dict.fromkeys(chosen))[:most]


def _predictions(models: Sequence[Fitted], features: Rows) -> Rows:
    """(n, m) of n candidates."""
    return np.stack([model.predict(features) for model in models], axis=1)
