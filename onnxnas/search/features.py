"""What a predictor sees of a candidate: numbers that say where its time and its quality come from.

For every dimension the share of what is left, one indicator for each choice, and, when the space tells them
(`profile`), the multiply-accumulates of every layer. Indicators let a linear model learn that a width of 12 takes
as long as one of 16; the layers' costs let it extrapolate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxnas.search.problem import Genotype, Problem

Floats = NDArray[np.float64]


class Features:
    """(n, f) features of genotypes; the same columns for every candidate of one problem."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._profile: Any = getattr(problem.space, "profile", None)
        self._known: dict[str, Floats] = {}

    def of(self, genotypes: Sequence[Genotype]) -> Floats:
        """One row for each of n genotypes."""
        return np.array([self._row(g) for g in genotypes])

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
