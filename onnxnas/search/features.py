"""What a predictor sees of a candidate: numbers that say where its time and its quality come from.

For every dimension the share of what is left, one indicator for each choice, and, when the space tells them
(`profile`), the multiply-accumulates of every layer. Indicators let a linear model learn that a width of 12 takes
as long as one of 16; the layers' costs let it extrapolate. What is known of an objective without measuring
(`Problem.hints`) is seen by that objective's predictor alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxnas.search.predictors import MANY, Fitted, fitted
from onnxnas.search.prior import Prior
from onnxnas.search.problem import Genotype, Problem

Floats = NDArray[np.float64]
FEWEST = 10  # candidates of a prior below which it predicts nothing


class Features:
    """(n, f) features of genotypes; the same columns for every candidate of one problem.

    Columns: what the genotype says, the figures that a prior says, the hints in the order of their objectives.

    elsewhere   how many columns are figures that a prior says
    hints       what the last columns say, by number of the objective
    costly      whether some hint is, so that `look` must be called before `of`
    prior       a predictor of every objective, as it was there; None unless all were
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._profile: Any = getattr(problem.space, "profile", None)
        self._known: dict[str, Floats] = {}
        self._told: list[Fitted] = []
        self.prior: list[Fitted] | None = None
        if problem.prior is not None and len(problem.prior) >= FEWEST:
            self._learn(problem.prior)
        self.elsewhere = len(self._told)
        names = [o.name for o in problem.objectives]
        self.hints = {i: problem.hints[name] for i, name in enumerate(names) if name in problem.hints}
        self.costly = any(hint.costly for hint in self.hints.values())
        self._free: dict[str, Floats] = {}
        self._looked: dict[str, tuple[Floats, Floats]] = {}
        self._guesses: dict[int, Fitted] = {}

    def of(self, genotypes: Sequence[Genotype]) -> Floats:
        """One row for each of n genotypes."""
        rows = np.array([self._row(g) for g in genotypes])
        told = (model.predict(rows)[:, None] for model in self._told)
        return np.concatenate([rows, *told, self._hinted(genotypes, rows)], axis=1)

    def look(self, genotypes: Sequence[Genotype]) -> None:
        """Ask the costly hints about these; what they say of others is predicted from all that were asked about."""
        new = {self._problem.key(genotype): genotype for genotype in genotypes}
        new = {key: genotype for key, genotype in new.items() if key not in self._looked}
        if not self.costly or not new:
            return
        for key, genotype in new.items():
            self._looked[key] = (self._row(genotype), self._said(genotype, costly=True))
        rows, said = (np.array(part) for part in zip(*list(self._looked.values())[-MANY:], strict=True))
        for place, hint in enumerate(self.hints.values()):
            able = np.isfinite(said[:, place])
            if hint.costly and able.any():
                self._guesses[place] = fitted("gp", rows[able], said[able, place])[1]

    def fitted(self, objective: int, features: Floats, values: Floats) -> tuple[str, Fitted]:
        """A predictor of the minimised objective of that number, fitted to n values (n,), and its name."""
        whole = features.shape[1]
        columns = np.arange(whole - len(self.hints))
        if objective not in self.hints:
            name, model = fitted("auto", features[:, columns], values, self.elsewhere)
            return name, _Seeing(model, columns)
        own = int(columns.size) + list(self.hints).index(objective)
        if self.hints[objective].exact:
            return "exact", _Column(own)
        columns = np.append(columns, own)
        name, model = fitted("auto", features[:, columns], values, self.elsewhere + 1, hinted=True)
        return name, _Seeing(model, columns)

    def _hinted(self, genotypes: Sequence[Genotype], rows: Floats) -> Floats:
        """What the hints say (n, hints), minimised; of costly ones what was said when asked, or a guess.

        What is no number counts as not said.
        """
        said = np.array([self._remembered(g) for g in genotypes])
        for place, model in self._guesses.items():
            unknown = ~np.isfinite(said[:, place])
            if unknown.any():
                said[unknown, place] = model.predict(rows[unknown])
        return np.where(np.isfinite(said), said, 0.0)

    def _remembered(self, genotype: Genotype) -> Floats:
        key = self._problem.key(genotype)
        if key not in self._free:
            self._free[key] = self._said(genotype, costly=False)
        if key not in self._looked:
            return self._free[key]
        looked = self._looked[key][1]
        return np.where(np.isfinite(looked), looked, self._free[key])

    def _said(self, genotype: Genotype, *, costly: bool) -> Floats:
        """What the hints of one kind say (hints,), nan for those of the other."""
        subnet, signs = self._problem.subnet(genotype), self._problem.signs
        said = [signs[i] * h.of(subnet) if h.costly == costly else np.nan for i, h in self.hints.items()]
        return np.array(said, np.float64)

    def _learn(self, prior: Prior) -> None:
        rows = np.array([self._row(g) for g in prior.genotypes(self._problem)])
        models = {name: fitted("auto", rows, prior.figures[:, i])[1] for i, name in enumerate(prior.names)}
        self._told = list(models.values())
        objectives = self._problem.objectives
        if all(o.name in models for o in objectives):
            columns = np.arange(rows.shape[1])
            signs = self._problem.signs
            self.prior = [
                _Seeing(models[o.name], columns, sign) for o, sign in zip(objectives, signs, strict=True)
            ]

    def _row(self, genotype: Genotype) -> Floats:
        key = self._problem.key(genotype)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._computed(genotype)
        return found

    def _computed(self, genotype: Genotype) -> Floats:
        subnet = self._problem.subnet(genotype)
        effective = self._problem.encode(subnet)
        upper = self._problem.upper
        share = 1 - effective / np.maximum(upper, 1)
        chosen = [np.eye(int(top) + 1)[value][1:] for value, top in zip(effective, upper, strict=True)]
        parts = [share, *chosen]
        if self._profile is not None:
            costs = np.asarray(self._profile(subnet), np.float64)
            parts += [costs, [costs.sum()]]
        return np.concatenate([np.atleast_1d(part) for part in parts])


@dataclass(frozen=True)
class _Seeing:
    """A fitted predictor that looks at some of the features; `sign` makes what it says a minimised objective."""

    model: Fitted
    columns: NDArray[np.int64]
    sign: float = 1.0

    def predict(self, features: Floats) -> Floats:
        return self.sign * self.model.predict(features[:, self.columns])


@dataclass(frozen=True)
class _Column:
    """What one feature says."""

    index: int

    def predict(self, features: Floats) -> Floats:
        return features[:, self.index]
