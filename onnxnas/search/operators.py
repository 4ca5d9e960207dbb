"""Variation of genotypes: initial sample, crossover, mutation. Plain functions on int arrays.

Operators respect what a dimension is. Widths and kernel sizes are ordered: a child lies between or beside its
parents, a mutation mostly goes one step. Depth bits and precisions are not: they are inherited whole, and
a mutation draws another value. (Polynomial mutation with rounding, the usual choice, returns the value that
it was given most of the time when a dimension has few choices; steps from a geometric law never do.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnxnas.search.problem import Genotype, Problem

STEP = 0.6
"""Parameter of the geometric law of a step: 60 % go to a neighbour, 24 % two steps, 10 % three ..."""


def crossover(a: Genotype, b: Genotype, ordered: NDArray[np.bool_], rng: np.random.Generator) -> Genotype:
    """A child of two parents (d,): each dimension from either; some ordered ones from in between."""
    child = np.where(rng.random(len(a)) < 0.5, a, b)
    blend = ordered & (rng.random(len(a)) < 0.25)
    between = rng.integers(np.minimum(a, b), np.maximum(a, b), endpoint=True)
    return np.where(blend, between, child)


def mutate(
    genotype: Genotype,
    upper: Genotype,
    ordered: NDArray[np.bool_],
    rng: np.random.Generator,
    rate: float | None = None,
) -> Genotype:
    """A changed copy (d,): every dimension with probability `rate`, at least one that has a choice.

    `rate` is 1/d by default (d: dimensions with more than one choice). An unchanged copy is returned only
    where no dimension has a choice.
    """
    free = np.flatnonzero(upper > 0)
    if not len(free):
        return genotype.copy()
    chosen = free[rng.random(len(free)) < (rate if rate is not None else 1 / len(free))]
    if not len(chosen):
        chosen = rng.choice(free, 1)
    child = genotype.copy()
    for i in chosen:
        value, top = int(child[i]), int(upper[i])
        if ordered[i]:
            step = int(min(rng.geometric(STEP), top))
            down, up = value - step >= 0, value + step <= top
            if not down and not up:  # further than either end: go to the further end
                child[i] = 0 if value > top - value else top
            else:
                go_up = up and (not down or rng.random() < 0.5)
                child[i] = value + step if go_up else value - step
        else:
            child[i] = (value + int(rng.integers(1, top + 1))) % (top + 1)
    return child


def otherwise(problem: Problem, whole: Genotype) -> list[Genotype]:
    """The network `whole` with each other value of what is chosen besides structure, one change at a time."""
    found = []
    for index in np.flatnonzero(~problem.structural):
        for value in range(problem.upper[index] + 1):
            if value != whole[index]:
                changed = whole.copy()
                changed[index] = value
                found.append(changed)
    return found


def diagonals(problem: Problem, levels: int) -> list[Genotype]:
    """Networks narrowed alike everywhere: all ordered dimensions at the same fraction of their range.

    `levels` of them without skipping anything and as many with all the categories at their last value,
    excluding both corners of the space.
    """
    found = []
    for level in range(1, levels + 1):
        fraction = level / (levels + 1)
        for rest in (0.0, 1.0):
            position = np.where(problem.ordered, fraction, rest)
            found.append(np.rint(position * problem.upper).astype(np.int64))
    return found


def spread_sample(problem: Problem, rng: np.random.Generator) -> Genotype:
    """A random genotype (d,) that may be small, middling or large overall.

    With tens of dimensions, independent uniform draws all give a middling network. Here the overall
    narrowness and the share of skipped blocks are drawn first, then every dimension around them.
    """
    narrow, other = rng.random(2)
    around = np.where(problem.ordered, narrow, other)
    spread = rng.beta(0.3 + 4 * around, 0.3 + 4 * (1 - around))
    switched = (rng.random(len(around)) < other).astype(np.float64)
    category = np.ceil(switched * rng.random(len(around)) * problem.upper)
    sample: Genotype = np.where(problem.ordered, np.rint(spread * problem.upper), category).astype(np.int64)
    return sample
