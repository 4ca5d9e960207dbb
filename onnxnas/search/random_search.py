"""Uniform random search: the baseline that every other algorithm has to beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnxnas.search.problem import Genotype, Problem
from onnxnas.search.settings import SearchSettings

ATTEMPTS = 1000
"""Draws in a row without anything new after which the space counts as exhausted."""


def random_search(problem: Problem, settings: SearchSettings, rng: np.random.Generator) -> RandomSearch:
    """Random search."""
    return RandomSearch(problem, rng)


class RandomSearch:
    """Independent draws from `space.random`, each candidate once; an `Algorithm`."""

    def __init__(self, problem: Problem, rng: np.random.Generator) -> None:
        self._problem = problem
        self._rng = rng
        self._seen: set[str] = set()

    def ask(self, n: int) -> list[Genotype]:
        drawn: list[Genotype] = []
        attempts = 0
        while len(drawn) < n and attempts < ATTEMPTS:
            space = self._problem.space
            genotype = self._problem.encode(space.repair(space.random(self._rng)))
            key = self._problem.key(genotype)
            if key in self._seen:
                attempts += 1
                continue
            attempts = 0
            self._seen.add(key)
            drawn.append(genotype)
        return drawn

    def tell(self, genotypes: Sequence[Genotype], objectives: NDArray[np.float64]) -> None:
        self._seen.update(self._problem.key(g) for g in genotypes)
