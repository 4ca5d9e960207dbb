"""Search algorithms: what they are, and by which name they are made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from onnxnas.errors import ConfigError
from onnxnas.plugins import is_reference, load_object
from onnxnas.search.problem import Genotype, Problem
from onnxnas.search.settings import SearchSettings


@runtime_checkable
class Algorithm(Protocol):
    """Proposes candidates and learns from what they turned out to be.

    A genotype is an int array (d,): an index into each dimension's choices, largest network first.

    Contract:
    - `ask(n)` returns between 1 and n genotypes, repaired (`Problem.repair`), no two of the whole search
      equal by `Problem.key` (the effective sub-network). It returns none when nothing new is left to
      propose, or when it cannot go on before candidates already asked for are told.
    - `tell(genotypes, objectives)` gives the objectives (n x m, float, every column to be minimised, in
      the order of `Problem.objectives`) of n candidates; a row of +inf says that the candidate failed: it
      must count as worse than anything else. Candidates are told in the order in which they were asked,
      in batches of any size. It may also be told candidates it never asked for (from another study) and
      must not propose those later.
    - The sequence of candidates depends only on the problem, the settings, the generator and what was
      told: no global random state, no clock, no dependence on the n of `ask`. A search is resumed by
      replaying it, which relies on this.
    - Not thread-safe. It never changes an array given to it, and the engine never changes what it returns.
    """

    def ask(self, n: int) -> list[Genotype]:
        """Propose at most n candidates."""
        ...

    def tell(self, genotypes: Sequence[Genotype], objectives: NDArray[np.float64]) -> None:
        """Learn from evaluated candidates."""
        ...


Factory = Callable[[Problem, SearchSettings, np.random.Generator], Algorithm]


def _of(module: str, function: str) -> Factory:
    """The factory of a module that is imported when a search needs it."""

    def make(problem: Problem, settings: SearchSettings, rng: np.random.Generator) -> Algorithm:
        factory: Factory = getattr(import_module(f"onnxnas.search.{module}"), function)
        return factory(problem, settings, rng)

    return make


ALGORITHMS: dict[str, Factory] = {
    "age-moea": _of("genetic", "age_moea"),
    "c-taea": _of("genetic", "c_taea"),
    "concurrent": _of("predicted", "concurrent"),
    "full": _of("predicted", "full"),
    "gp": _of("sampled", "gp"),
    "nsga2": _of("genetic", "nsga2"),
    "optuna-nsga2": _of("sampled", "optuna_nsga2"),
    "r-nsga2": _of("genetic", "r_nsga2"),
    "random": _of("random_search", "random_search"),
    "tpe": _of("sampled", "tpe"),
}
PREDICTING = ("concurrent", "full")
"""Those that have use for hints of the problem."""


def make_algorithm(problem: Problem, settings: SearchSettings, rng: np.random.Generator) -> Algorithm:
    """The algorithm that `settings.algorithm` names: one of `ALGORITHMS` or a factory as 'module:name'.

    A factory is called with (problem, settings, generator), like those in `ALGORITHMS`; a class is one.

    Raises:
        ConfigError: no such algorithm, or what was named is not a factory.
    """
    name = settings.algorithm
    if name in ALGORITHMS:
        return ALGORITHMS[name](problem, settings, rng)
    if not is_reference(name):
        raise ConfigError(
            f"search algorithm {name!r} is not known: use one of {', '.join(sorted(ALGORITHMS))}, "
            "or 'module:name' for your own"
        )
    factory = load_object(name, what="search algorithm")
    if not callable(factory):
        raise ConfigError(f"search algorithm {name!r} is not callable: give a class or function")
    algorithm = factory(problem, settings, rng)
    if not isinstance(algorithm, Algorithm):
        raise ConfigError(f"search algorithm {name!r} made a {type(algorithm).__name__} without ask and tell")
    return algorithm
