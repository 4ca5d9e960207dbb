"""How many epochs of fine-tuning fit into the time there is."""

from __future__ import annotations

import math
from collections.abc import Sequence

from onnxnas.pipeline.crew import makespan


def fitting_epochs(
    each: Sequence[float],
    size: int,
    seconds: float,
    most: float,
    *,
    asking: float = 0.0,
    known: int = 0,
    distinct: float = math.inf,
) -> list[float]:
    """Epochs for each finalist, at most `most`, so that all are done in `seconds`, `size` at a time.

    `each` has the seconds that one of its epochs takes. `asking` is what the answers of the original for one epoch
    take, which all share; those of the first `known` epochs are there, and after `distinct` epochs nothing is
    asked any more. With a process for each finalist they end together, and the faster ones see more epochs;
    otherwise all see the same number.
    """
    alone = len(each) <= size
    rows = list(each) if alone else [makespan(each, size)] * len(each)
    fastest = min(rows)
    longest = seconds / fastest
    if longest > known:
        longest = (seconds + known * asking) / (fastest + asking)
    left = seconds - asking * max(0.0, min(longest, most, distinct) - known)
    return [min(most, round(left / row, 2)) for row in rows]
