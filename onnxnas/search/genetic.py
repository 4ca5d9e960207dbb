"""pymoo's genetic algorithms over the search space; limits of objectives are constraints, met before anything else.

| name | selection |
|---|---|
| `nsga2` | non-dominated ranks, ties by crowding distance (Deb et al., 2002) |
| `r-nsga2` | non-dominated ranks, ties by distance to reference points (Deb and Sundar, 2006) |
| `age-moea` | survival by the estimated geometry of the front (Panichella, 2019) |
| `c-taea` | two archives, one to converge within the limits, one to stay diverse (Li et al., 2018) |
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymoo.algorithms.moo.nsga2 import NSGA2, binary_tournament
from pymoo.operators.selection.tournament import TournamentSelection

from onnxnas.errors import ConfigError, EnvironmentProblem
from onnxnas.search.aims import reference_points
from onnxnas.search.evolution import Evolution
from onnxnas.search.front import Rows, non_dominated
from onnxnas.search.problem import Problem
from onnxnas.search.settings import SearchSettings


def nsga2(problem: Problem, settings: SearchSettings, rng: np.random.Generator) -> Evolution:
    """NSGA-II."""
    return Evolution(problem, settings, rng, lambda first, **parts: NSGA2(**parts), _by_rank())


def r_nsga2(problem: Problem, settings: SearchSettings, rng: np.random.Generator) -> Evolution:
    """R-NSGA-II towards `settings.reference_points`. Raises ConfigError when one names no objective of the search.

    What a point leaves open is as it is in the nearest member of the first generation's front (the search then makes
    that better). Without points, the one aimed at is made of the objectives' limits.
    """
    from pymoo.algorithms.moo.rnsga2 import RNSGA2

    if not settings.reference_points:
        limits = {o.name: o.limit for o in problem.objectives if o.limit is not None}
        settings = settings.model_copy(update={"reference_points": (limits,)})
    points = reference_points(problem, settings)

    def make(first: Rows, **parts: Any) -> Any:
        return RNSGA2(ref_points=_completed(points, first[non_dominated(first)]), **parts)

    return Evolution(problem, settings, rng, make, _by_rank())


def age_moea(problem: Problem, settings: SearchSettings, rng: np.random.Generator) -> Evolution:
    """AGE-MOEA. Raises EnvironmentProblem without numba, which pymoo's needs."""
    if find_spec("numba") is None:
        raise EnvironmentProblem("search algorithm age-moea needs numba; pip install 'onnxnas[age-moea]'")
    from pymoo.algorithms.moo.age import AGEMOEA

    return Evolution(problem, settings, rng, lambda first, **parts: AGEMOEA(**parts), _by_rank())


def c_taea(problem: Problem, settings: SearchSettings, rng: np.random.Generator) -> Evolution:
    """C-TAEA, with at most `settings.population` evenly spread directions. Raises ConfigError for one objective."""
    from pymoo.algorithms.moo.ctaea import CTAEA, RestrictedMating, comp_by_cv_dom_then_random

    class Trimmed(CTAEA):  # type: ignore[misc]
        """Can also be told to go down to the size of its population, as the others can."""

        def _advance(self, infills: Any = None, **more: Any) -> None:
            super()._advance(infills=self.pop[:0] if infills is None else infills, **more)

    objectives = len(problem.objectives)
    if objectives < 2:
        raise ConfigError("search algorithm c-taea needs two objectives or more: use nsga2")
    directions = _directions(objectives, settings.population)

    def make(first: Rows, pop_size: int, **parts: Any) -> Any:
        return Trimmed(ref_dirs=directions, **parts)

    return Evolution(problem, settings, rng, make, RestrictedMating(func_comp=comp_by_cv_dom_then_random))


def _by_rank() -> TournamentSelection:
    return TournamentSelection(func_comp=binary_tournament)


def _completed(points: Rows, front: Rows) -> Rows:
    """The points (n x m) with what is NaN in them taken from the nearest row of the front."""
    span = np.maximum(np.ptp(front, axis=0), 1e-12)
    away = np.nansum(((front[None] - points[:, None]) / span) ** 2, axis=2)
    completed: Rows = np.where(np.isnan(points), front[np.argmin(away, axis=1)], points)
    return completed


def _directions(objectives: int, most: int) -> NDArray[np.float64]:
    """Evenly spread directions (n x m), as many as there can be up to `most` (Das and Dennis, 1998)."""
    from pymoo.util.ref_dirs import get_reference_directions

    partitions = 1
    while len(get_reference_directions("das-dennis", objectives, n_partitions=partitions + 1)) <= most:
        partitions += 1
    directions: NDArray[np.float64] = get_reference_directions(
        "das-dennis", objectives, n_partitions=partitions
    )
    return directions
