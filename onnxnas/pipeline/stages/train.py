"""Stage 2: train the weight-sharing super-network, taught by the original model."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from onnxnas import train
from onnxnas.pipeline import budget, trained
from onnxnas.pipeline.line import Line
from onnxnas.pipeline.team import WORTH, Team, sizes
from onnxnas.train.settings import TrainSettings

if TYPE_CHECKING:
    from onnxnas.supernet import SuperNetwork

_EVALUATIONS = 8
_LEAST_EPOCHS = 0.15


def run(line: Line) -> None:
    """Write supernet/weights.safetensors; continues from the last checkpoint."""
    with ExitStack() as stack:
        plan = line.run.plan("train")
        if plan is None:
            together, plan = _planned(line, stack)
            line.run.decide("train", plan)
        else:
            together = stack.enter_context(Team(line, plan.get("processes", 1)))
        result = _trained(line, plan, together)
    line.run.finish("train", result.seconds, ("supernet/weights.safetensors",), result=result.to_json())


def _trained(line: Line, plan: Mapping[str, Any], together: Team) -> train.TrainResult:
    settings = train.settled(line.config.train.model_copy(update=plan["settings"]), line.graph)
    by = f" in {together.size} processes" if together.size > 1 else ""
    line.say(
        f"train: {settings.strategy}, {settings.optimizer} with learning rate {settings.lr:g}, "
        f"{settings.epochs:g} epochs of {line.data.train.n:,} samples, "
        f"about {plan['images_per_second']:.0f} samples/s{by}"
    )

    def watch(row: Mapping[str, Any]) -> None:
        if "eval" in row:
            told = ", ".join(f"{name} {value:.2f}" for name, value in row["eval"].items())
            line.say(f"train: epoch {row['epoch']:g}: {told}")
        else:
            line.step(
                "train",
                row["epoch"],
                settings.epochs,
                f"loss {row['loss']}, {row['images_per_second']:.0f}/s",
            )

    return together.train(
        trained.fresh(line.space, line.device),
        settings,
        directory=line.run / "supernet",
        on_event=watch,
    )


def _planned(line: Line, stack: ExitStack) -> tuple[Team, dict[str, Any]]:
    """The fastest team, which `stack` ends, and how much it can train."""
    settings = line.config.train
    network = trained.fresh(line.space, line.device)
    seconds = budget.allowance(line, "train")
    found: list[tuple[float, Team]] = []
    for size in sizes(line, seconds):
        one = stack.enter_context(Team(line, size))
        rate = trained.speed(line.data.train.n, network, settings, one.train)
        if found and rate < WORTH * found[-1][0]:
            one.end()
        else:
            for _, slower in found:
                slower.end()
            found = [(rate, one)]
    ((rate, together),) = found
    return together, _plan(line, network, rate, together.size, seconds)


def _plan(
    line: Line, network: SuperNetwork, rate: float, processes: int, seconds: float | None
) -> dict[str, Any]:
    settings = line.config.train
    epochs, every = settings.epochs, settings.eval_every
    limit = settings.max_seconds
    if seconds is not None:
        limit = min(budget.PATIENCE * seconds, limit or math.inf)
        judged = _evaluation_seconds(line, network, settings) if every > 0 else 0.0
        seconds = max(seconds - _EVALUATIONS * judged, 0.5 * seconds)
        epochs = max(_LEAST_EPOCHS, min(epochs, round(seconds * rate / line.data.train.n, 2)))
    if every > 0:
        every = max(every, round(epochs / _EVALUATIONS, 2))
    changes = {"epochs": epochs, "eval_every": every, "max_seconds": limit, "processes": processes}
    return {"images_per_second": round(rate, 1), "processes": processes, "settings": changes}


def _evaluation_seconds(line: Line, network: Any, settings: TrainSettings) -> float:
    judge = train.Judge(
        network,
        line.data,
        "val",
        line.metric,
        recalibration_images=settings.recalibration_images,
        limit=settings.eval_images,
    )
    began = time.perf_counter()
    judge.quality(line.space.maximal())
    judge.quality(line.space.minimal())
    return (time.perf_counter() - began) / 2 * (2 + settings.eval_random)
