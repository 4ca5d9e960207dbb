"""Which candidates are worth having: dominance, Pareto front, hypervolume, knee, spread.

All arrays of objectives here are (n x m) with every column to be minimised (`minimised` turns them).
Candidate a dominates b when it is nowhere worse and somewhere better. Equal candidates do not dominate
each other: both stay.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxnas.types import Objective, Trial

Rows = NDArray[np.float64]


def minimised(trials: Sequence[Trial], objectives: Sequence[Objective]) -> Rows:
    """Objective values (n x m), smaller is better; all trials must have status 'ok'."""
    signs = np.array([-1.0 if o.maximise else 1.0 for o in objectives])
    values = np.array([[t.values[o.name] for o in objectives] for t in trials], dtype=np.float64)
    rows: Rows = values.reshape(len(trials), len(objectives)) * signs
    return rows


def feasible(trial: Trial, objectives: Sequence[Objective]) -> bool:
    """Whether the trial succeeded and keeps every limit."""
    if trial.status != "ok":
        return False
    for o in objectives:
        if o.limit is not None:
            value = trial.values[o.name]
            if (value < o.limit) if o.maximise else (value > o.limit):
                return False
    return True


def non_dominated(rows: Rows) -> NDArray[np.bool_]:
    """Which of n rows no other row dominates: (n x m) -> (n,). O(n f) for a front of f members."""
    keep = np.zeros(len(rows), dtype=bool)
    # in lexicographic order, a row can only be dominated by one before it
    front: list[int] = []
    for i in np.lexsort(rows.T[::-1]):
        others = rows[front]
        if not ((others <= rows[i]).all(axis=1) & (others < rows[i]).any(axis=1)).any():
            keep[i] = True
            front.append(int(i))
    return keep


def best_layers(rows: Rows, count: float) -> NDArray[np.int64]:
    """Which of n rows (n x m) are on the first non-dominated layers; whole ones, until there are `count`."""
    left, taken = np.arange(len(rows)), np.empty(0, np.int64)
    while left.size and taken.size < count:
        keep = non_dominated(rows[left])
        taken, left = np.concatenate([taken, left[keep]]), left[~keep]
    return taken


def pareto(trials: Sequence[Trial], objectives: Sequence[Objective]) -> list[Trial]:
    """The successful trials within the limits that no other such trial dominates, by the first objective."""
    able = [t for t in trials if feasible(t, objectives)]
    if not able:
        return []
    rows = minimised(able, objectives)
    chosen = np.flatnonzero(non_dominated(rows))
    return [able[i] for i in sorted(chosen, key=lambda i: (*rows[i], able[i].number))]


@dataclass(frozen=True)
class Frame:
    """A fixed scale for hypervolumes: `ideal` (m,) maps to 0 and `reference` (m,) to 1, both minimised."""

    ideal: tuple[float, ...]
    reference: tuple[float, ...]

    @classmethod
    def of(cls, trials: Sequence[Trial], objectives: Sequence[Objective]) -> Frame | None:
        """The box around the successful trials; None without any. A flat side is given the length 1."""
        able = [t for t in trials if t.status == "ok"]
        if not able:
            return None
        rows = minimised(able, objectives)
        return cls.around(rows, 0.0)

    @classmethod
    def around(cls, rows: Rows, margin: float = 0.1) -> Frame:
        """The box around n > 0 rows (n x m); the reference is farther out, by this share of the box."""
        low, high = rows.min(axis=0), rows.max(axis=0)
        high = np.where(high > low, high, low + 1.0) + margin * (high - low)
        return cls(tuple(low.tolist()), tuple(high.tolist()))


def hypervolume(rows: Rows, frame: Frame) -> float:
    """The volume that n rows (n x m) dominate within the frame, in units of the frame's own volume.

    A row that is not better than the reference in every column adds nothing. More than 1 is possible:
    the ideal only sets the scale. (Zitzler and Thiele, 1998; computed by pymoo.)
    """
    from pymoo.indicators.hv import HV

    ideal, reference = np.array(frame.ideal), np.array(frame.reference)
    scaled = (rows - ideal) / (reference - ideal)
    scaled = scaled[(scaled < 1.0).all(axis=1)]
    if not len(scaled):
        return 0.0
    return float(HV(ref_point=np.ones(len(ideal)), norm_ref_point=False)(scaled))


def most_volume(rows: Rows, count: int, frame: Frame, start: Rows | None = None) -> list[int]:
    """Which `count` of n rows (n x m) to take: each enlarges the hypervolume of `start` and those before it most.

    What a row adds never grows while others are taken, so that what it added before is a bound, and only rows whose
    bound is the largest have to be looked at again. (Minoux, 1978: the accelerated greedy algorithm.)
    """
    held = np.empty((0, rows.shape[1])) if start is None else start[non_dominated(start)]
    whole = hypervolume(held, frame)
    bounds = [(-np.inf, i) for i in range(len(rows))]  # less is more; of equal ones the first
    added = dict.fromkeys(range(len(rows)), -1)  # after how many taken its bound was worked out
    taken: list[int] = []
    while bounds and len(taken) < count:
        _, i = heapq.heappop(bounds)
        if added[i] < len(taken):
            added[i] = len(taken)
            more = hypervolume(np.vstack([held, rows[i]]), frame) - whole
            heapq.heappush(bounds, (-round(more, 12), i))  # beyond that is rounding
            continue
        taken.append(i)
        held = np.vstack([held, rows[i]])
        held = held[non_dominated(held)]
        whole = hypervolume(held, frame)
    return taken


def knee(front: Sequence[Trial], objectives: Sequence[Objective]) -> Trial:
    """The member farthest below the plane through the front's extremes: the best compromise.

    With every objective scaled to [0, 1] over the front that plane is sum(x) = 1, so the knee has the
    smallest sum. (Das, 1999.)

    Raises:
        ValueError: the front is empty.
    """
    if not front:
        raise ValueError("a front without members has no knee")
    rows = minimised(front, objectives)
    low, high = rows.min(axis=0), rows.max(axis=0)
    scaled = (rows - low) / np.where(high > low, high - low, 1.0)
    return front[int(np.argmin(scaled.sum(axis=1)))]


def overlap(a: Trial, b: Trial, objective: Objective) -> bool:
    """Whether two trials cannot be told apart in an objective: their 95 % intervals meet.

    A trial without an interval for the objective has its value as one.
    """

    def interval(trial: Trial) -> tuple[float, float]:
        measured = trial.measurements.get(objective.name)
        value = trial.values[objective.name]
        return (value, value) if measured is None else (measured.low, measured.high)

    (a_low, a_high), (b_low, b_high) = interval(a), interval(b)
    return a_low <= b_high and b_low <= a_high


def surely_dominated(trial: Trial, others: Sequence[Trial], objectives: Sequence[Objective]) -> bool:
    """Whether some other trial is nowhere worse and somewhere better by more than the intervals."""
    row = minimised([trial], objectives)[0]
    for other in others:
        if other is trial:
            continue
        theirs = minimised([other], objectives)[0]
        if (theirs <= row).all() and any(
            theirs[i] < row[i] and not overlap(trial, other, o) for i, o in enumerate(objectives)
        ):
            return True
    return False
