"""Searching the space for sub-networks that nothing beats.

`run` drives an `Algorithm` (ask/tell) with an `Evaluator`; every trial is recorded in an Optuna storage
before the next starts, and a resumed search replays the record. `front` says which trials are worth having.
Nothing outside this package imports pymoo or Optuna.
"""

from pymoo.config import Config

from onnxnas.search.algorithm import ALGORITHMS, PREDICTING, Algorithm, make_algorithm
from onnxnas.search.engine import run
from onnxnas.search.evaluator import Evaluator
from onnxnas.search.front import (
    Frame,
    best_layers,
    feasible,
    hypervolume,
    knee,
    minimised,
    most_volume,
    non_dominated,
    overlap,
    pareto,
    surely_dominated,
)
from onnxnas.search.predicted import LOOKS
from onnxnas.search.predictors import Round
from onnxnas.search.prior import Prior
from onnxnas.search.problem import Dimension, Genotype, Hint, Problem, Space
from onnxnas.search.progress import Progress, ProgressMeter
from onnxnas.search.reduction import ReducedSpace, better_half, populated
from onnxnas.search.rounded import RoundedSpace
from onnxnas.search.served import ServedSpace
from onnxnas.search.settings import SearchSettings
from onnxnas.search.study import Study, load_trials, sqlite_url
from onnxnas.search.tables import read_trials_csv, write_trials_csv

# pymoo without compiled modules says so on stdout when first used, where it would spoil machine-read output
Config.warnings["not_compiled"] = False

__all__ = [
    "ALGORITHMS",
    "LOOKS",
    "PREDICTING",
    "Algorithm",
    "Dimension",
    "Evaluator",
    "Frame",
    "Genotype",
    "Hint",
    "Prior",
    "Problem",
    "Progress",
    "ProgressMeter",
    "ReducedSpace",
    "Round",
    "RoundedSpace",
    "SearchSettings",
    "ServedSpace",
    "Space",
    "Study",
    "best_layers",
    "better_half",
    "feasible",
    "hypervolume",
    "knee",
    "load_trials",
    "make_algorithm",
    "minimised",
    "most_volume",
    "non_dominated",
    "overlap",
    "pareto",
    "populated",
    "read_trials_csv",
    "run",
    "sqlite_url",
    "surely_dominated",
    "write_trials_csv",
]
