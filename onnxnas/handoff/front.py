"""Fronts and hypervolumes of two objectives, for drawing.

The front is every point that no other point beats in both objectives. The hypervolume of a front of two
objectives, scaled so that the worst seen is 0 and the best seen is 1 in each, is the area it covers.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

LARGER_IS_BETTER = frozenset({"quality", "throughput"})

Point = tuple[float, float]


def front(points: Sequence[Point], larger: tuple[bool, bool]) -> list[int]:
    """Indices of the points that no other dominates, best first objective first; of equal points the first."""
    scored = [_gain(point, larger) for point in points]
    order = sorted(range(len(points)), key=lambda i: (-scored[i][0], -scored[i][1], i))
    best, found = float("-inf"), []
    for i in order:
        if scored[i][1] > best:
            best = scored[i][1]
            found.append(i)
    return found


def hypervolumes(points: Sequence[Point], larger: tuple[bool, bool]) -> list[float]:
    """Percent of the box between worst and best that the front of points[:n] covers, for n = 1 .. len(points)."""
    scored = [_gain(point, larger) for point in points]
    low = [min(s[axis] for s in scored) for axis in (0, 1)]
    span = [(max(s[axis] for s in scored) - low[axis]) or 1.0 for axis in (0, 1)]
    xs: list[float] = []  # of the front, ascending; ys descend
    ys: list[float] = []
    volumes = []
    for gain in scored:
        x, y = ((gain[axis] - low[axis]) / span[axis] for axis in (0, 1))
        at = bisect_left(xs, x)
        if at == len(xs) or ys[at] < y:  # not dominated by one at least as far to the right
            end = at + 1 if at < len(xs) and xs[at] == x else at
            start = at
            while start > 0 and ys[start - 1] <= y:
                start -= 1
            xs[start:end], ys[start:end] = [x], [y]
        volumes.append(100.0 * sum((x2 - x1) * y2 for x1, x2, y2 in zip([0.0, *xs], xs, ys, strict=False)))
    return volumes


def _gain(point: Point, larger: tuple[bool, bool]) -> Point:
    return (point[0] if larger[0] else -point[0], point[1] if larger[1] else -point[1])
