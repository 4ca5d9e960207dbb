"""The measuring process of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxnas import measure
from onnxnas.pipeline import build, serving

if TYPE_CHECKING:
    from onnxnas.pipeline.line import Line


def measurer(line: Line) -> measure.Measurer:
    """A measuring process for this run's target, beside the user's model."""
    config = line.config
    return measure.Measurer(
        config.target,
        line.baseline,
        build.feeds(line.original, line.data, config.batch),
        timeout=config.search.timeout,
        memory_limit=config.search.memory_limit,
        seed=config.seed,
        cores=serving.cores(config),
    )
