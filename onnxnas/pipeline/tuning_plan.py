"""How long finalists are fine-tuned, and by how many processes each."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxnas.pipeline import budget, finetuning
from onnxnas.pipeline.candidates import untouched
from onnxnas.pipeline.epochs import fitting_epochs
from onnxnas.pipeline.team import WORTH, sizes_for_finalists

if TYPE_CHECKING:
    from onnxnas.pipeline.crew import Crew
    from onnxnas.pipeline.line import Line
    from onnxnas.types import Subnet

_OVERHEAD_SECONDS = 5.0  # of one long measurement and of judging on the test samples

Bodies = Sequence[dict[str, Any]]


def planned(line: Line, finals: list[Subnet], own: list[int], crew: Crew) -> dict[str, Any]:
    """What is decided about finalists, of which those numbered `own`, from 1, have weights of their own.

    {"subnets", by finalist "epochs" and "limits" in seconds, "processes" for each at a time, "lessons": epochs of
    answers to be kept}
    """
    config = line.config.finalise
    tuned = [index - 1 for index in own if not untouched(finals[index - 1])]
    bodies = [finals[index].to_json() for index in tuned]
    seconds = config.max_seconds or budget.allowance(line, "finalise")
    processes = sizes_for_finalists(line, seconds, crew.size)[0]
    epochs = [0.0] * len(finals)
    limits: list[float | None] = [None] * len(finals)
    if tuned and config.epochs > 0:
        found: list[float] = [float(config.epochs)] * len(tuned)
        if seconds is not None:
            began = time.perf_counter()
            processes, rates = _fastest(line, bodies, seconds, crew)
            measuring = (config.measure_seconds + _OVERHEAD_SECONDS) * (1 + len(finals))
            left = max(seconds - measuring - (time.perf_counter() - began), 0.3 * seconds)
            found, most = _fitted(line, rates, left, crew.size)
            for index, limit in zip(tuned, most, strict=True):
                limits[index] = limit
        for index, one in zip(tuned, found, strict=True):
            epochs[index] = one
    return {
        "subnets": [subnet.to_json() for subnet in finals],
        "epochs": epochs,
        "limits": limits,
        "processes": processes,
        "lessons": finetuning.kept_epochs(line, max(epochs), len(tuned)),
    }


def _fastest(line: Line, bodies: Bodies, seconds: float, crew: Crew) -> tuple[int, list[dict[str, Any]]]:
    """By how many processes each is fine-tuned fastest, and how fast, as `finetuning.speed` tells."""
    best: tuple[float, int, list[dict[str, Any]]] | None = None
    for size in sizes_for_finalists(line, seconds, crew.size):
        rates = crew.map([{"do": "speed", "subnet": body, **crew.together(size)} for body in bodies])
        takes = sum(1 / rate["samples_per_second"] for rate in rates)
        if best is None or takes * WORTH < best[0]:
            best = takes, size, rates
    assert best is not None
    return best[1:]


def _fitted(
    line: Line, rates: Sequence[dict[str, Any]], left: float, at_a_time: int
) -> tuple[list[float], list[float]]:
    """Epochs, and limits in seconds, of finalists that are fine-tuned at these rates in the seconds left."""
    most, count = line.config.finalise.epochs, line.finishing.train.n
    each = [count / rate["samples_per_second"] for rate in rates]  # seconds of one epoch
    asking = [count / (rate["teacher_samples_per_second"] or np.inf) for rate in rates]
    known = finetuning.lessons(line).known()
    chosen = finetuning.settings(line, 1.0)
    sharing = 2 if chosen.mirrored else 1  # epochs that have the same answers
    told = float(np.mean(asking)) / at_a_time / sharing
    distinct = chosen.distinct_epochs or math.inf
    epochs = fitting_epochs(each, at_a_time, left, most, asking=told, known=known, distinct=distinct)
    if not finetuning.kept_epochs(line, max(epochs), len(rates)):
        each = [own + teacher for own, teacher in zip(each, asking, strict=True)]
        epochs = fitting_epochs(each, at_a_time, left, most)
    limits = [max(0.1, round(budget.PATIENCE * one * own, 1)) for one, own in zip(epochs, each, strict=True)]
    return epochs, limits
