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

from onnxnas.search.predictors import Fitted, fitted
from onnxnas.search.prior import Prior
from onnxnas.search.problem import Genotype, Problem

Floats = NDArray[np.float64]
FEWEST = 10  # candidates of a prior below which it predicts nothing


class Features:
    """(n, f) features of genotypes; the same columns for every candidate of one problem.

    Columns: what the genotype says, the figures that a prior says, the hints in the order of their objectives.

    elsewhere   how many columns are figures that a prior says
    hints       what the last columns say, by number of the objective
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
        self._hinted: dict[str, Floats] = {}

    def of(self, genotypes: Sequence[Genotype]) -> Floats:
        """One row for each of n genotypes."""
        rows = np.array([self._row(g) for g in genotypes])
        told = (model.predict(rows)[:, None] for model in self._told)
        hints = np.array([self._hint(g) for g in genotypes])
        return np.concatenate([rows, *told, hints], axis=1)

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

    def _hint(self, genotype: Genotype) -> Floats:
        key = self._problem.key(genotype)
        if key not in self._hinted:
            subnet, signs = self._problem.subnet(genotype), self._problem.signs
            said = [signs[i] * hint.of(subnet) for i, hint in self.hints.items()]
            self._hinted[key] = np.array(said, np.float64)
        return self._hinted[key]

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
