"""The range of each tensor that is rounded, seen on samples.

Of every row (mostly a sample) the least and the greatest value are taken. The range is that which 97 % of the rows
keep on each side: some outliers are cut off, so that all others are told apart more finely. On CIFAR ResNets this gave
the outputs of the network in floats to 31 dB, as the extremes of all rows did, and the means of both only to 20 dB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import rewriters
from onnxnas.errors import ModelError

SHARE = 0.97  # of the rows, whose extremes lie within the range
LEVELS = 255  # steps between the least and the greatest number of 8 bits

Run = Callable[[bytes, Mapping[str, NDArray[Any]]], Sequence[NDArray[Any]]]
"""A model's outputs for a batch of inputs, however it is run."""


@dataclass(frozen=True)
class Range:
    """Values from `low` <= 0 to `high` >= 0, in 255 equal steps, so that zero is a step."""

    low: float
    high: float

    @property
    def scale(self) -> float:
        """A step; 1/255 where there are only zeros, so that it is no zero itself."""
        return float(np.float32((self.high - self.low) / LEVELS)) or 1.0 / LEVELS

    @property
    def zero_point(self) -> int:
        """The step that is zero."""
        return round(-self.low / self.scale)


def seen(
    parts: rewriters.Parts, tensors: Sequence[str], run: Run, batches: Iterable[Mapping[str, NDArray[Any]]]
) -> dict[str, Range]:
    """The ranges of `tensors` over all batches. Raises ModelError for one that is not finite."""
    content = rewriters.with_ranges(parts, tensors).to_bytes()
    told = [run(content, batch) for batch in batches]
    found = {}
    for index, tensor in enumerate(tensors):
        least = np.concatenate([outputs[index] for outputs in told])
        greatest = np.concatenate([outputs[len(tensors) + index] for outputs in told])
        low, high = float(np.quantile(least, 1 - SHARE)), float(np.quantile(greatest, SHARE))
        if not np.isfinite([low, high]).all():
            raise ModelError(
                f"tensor '{tensor}' is not finite on the samples for calibration: {low} to {high}"
            )
        found[tensor] = Range(min(low, 0.0), max(high, 0.0))
    return found
