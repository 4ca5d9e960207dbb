"""Reference points: where on the front a search is to look."""

from __future__ import annotations

import numpy as np

from onnxnas.errors import ConfigError
from onnxnas.search.front import Rows
from onnxnas.search.problem import Problem
from onnxnas.search.settings import SearchSettings


def reference_points(problem: Problem, settings: SearchSettings) -> Rows:
    """`settings.reference_points` (n x m), minimised, NaN where a point says nothing.

    Raises ConfigError when one names no objective of the search.
    """
    names = [o.name for o in problem.objectives]
    points = np.full((len(settings.reference_points), len(names)), np.nan)
    for row, point in zip(points, settings.reference_points, strict=True):
        for name, value in point.items():
            if name not in names:
                raise ConfigError(
                    f"reference point: '{name}' is not an objective of this search; use {', '.join(names)}"
                )
            row[names.index(name)] = problem.signs[names.index(name)] * value
    return points


def nearest(rows: Rows, point: Rows, count: int) -> list[int]:
    """Which `count` of n rows (n x m), all minimised, are best for one who wants the point (m,), NaN where it is open.

    First those that are no worse than the point in what it says, or else lack the least; of these the ones that are
    best in what it leaves open, in units of what the rows span.
    """
    span = np.maximum(np.ptp(rows, axis=0), 1e-12)
    lacking = np.nansum(np.maximum(rows - point, 0.0) / span, axis=1)
    left_open = (rows / span)[:, np.isnan(point)].sum(axis=1)
    return [int(i) for i in np.lexsort((left_open, lacking))[:count]]
