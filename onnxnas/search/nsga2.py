"""NSGA-II (Deb et al., 2002): non-dominated ranks, ties broken by crowding distance; pymoo's."""

from __future__ import annotations

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2, binary_tournament
from pymoo.operators.selection.tournament import TournamentSelection

from onnxnas.search.evolution import Evolution
from onnxnas.search.problem import Problem
from onnxnas.search.settings import SearchSettings


def nsga2(problem: Problem, settings: SearchSettings, rng: np.random.Generator) -> Evolution:
    """NSGA-II over the search space; limits of objectives are constraints, met before anything else."""
    return Evolution(problem, settings, rng, NSGA2, TournamentSelection(func_comp=binary_tournament))
