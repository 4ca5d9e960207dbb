"""Stage 2: train the weight-sharing super-network, taught by the original model."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from onnxnas import train
from onnxnas.pipeline import budget, trained
from onnxnas.pipeline.line import Line
from onnxnas.train.settings import TrainSettings

_EVALUATIONS = 8
_LEAST_EPOCHS = 0.15


def run(line: Line) -> None:
    """Write supernet/weights.safetensors; continues from the last checkpoint."""
    plan = line.run.plan("train") or line.run.decide("train", _plan(line))
    settings = line.config.train.model_copy(update=plan["settings"])
    line.say(
        f"train: {settings.strategy}, {settings.epochs:g} epochs of {line.data.train.n:,} samples, "
        f"about {plan['images_per_second']:.0f} samples/s"
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

    result = train.train(
        trained.fresh(line.space, line.config.device),
        line.data,
        settings,
        directory=line.run / "supernet",
        seed=line.config.seed,
        metric=line.metric,
        on_event=watch,
    )
    line.run.finish("train", result.seconds, ("supernet/weights.safetensors",), result=result.to_json())


def _plan(line: Line) -> dict[str, Any]:
    settings = line.config.train
    network = trained.fresh(line.space, line.config.device)
    rate = trained.speed(line, network, settings)
    epochs, every = settings.epochs, settings.eval_every
    limit = settings.max_seconds
    seconds = budget.allowance(line, "train")
    if seconds is not None:
        limit = min(budget.PATIENCE * seconds, limit or math.inf)
        judged = _evaluation_seconds(line, network, settings) if every > 0 else 0.0
        seconds = max(seconds - _EVALUATIONS * judged, 0.5 * seconds)
        epochs = max(_LEAST_EPOCHS, min(epochs, round(seconds * rate / line.data.train.n, 2)))
    if every > 0:
        every = max(every, round(epochs / _EVALUATIONS, 2))
    changes = {"epochs": epochs, "eval_every": every, "max_seconds": limit}
    return {"images_per_second": round(rate, 1), "settings": changes}


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
