"""Which candidates of a search become its finalists."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from onnxnas import data, search, train
from onnxnas.errors import CheckFailed
from onnxnas.pipeline.candidates import Candidates
from onnxnas.pipeline.line import Line
from onnxnas.pipeline.measuring import measurer
from onnxnas.pipeline.objectives import gain, within
from onnxnas.types import Objective, Subnet, Trial

SHORTLIST = 4  # candidates judged again for each finalist
LEAST_GAIN = 1.2  # a candidate that is hardly faster is not worth fine-tuning
DROP = 1.0
DROP_OF_AGREEMENT = 5.0  # per cent, see `drop`


def least_quality(line: Line, whole: float) -> float:
    """The least quality that a finished network may have, when that of the original is `whole`.

    `max_drop` below it, see `drop`; but a network compared with itself by a metric without a finite best, such as
    PSNR, is exact, and nothing else comes near: then the limit on quality that the user gave is all that counts.
    """
    return line.config.limits["quality"] if exact(line.data, line.metric) else whole - drop(line)


def drop(line: Line) -> float:
    """How much quality may be lost, in the metric's unit: what the user said, else by what quality is.

    Agreement with the original is the stricter measure: a network whose accuracy is that of the original to half a
    point agrees with it on 95 % of the samples (measured, docs/results.md), so that a point would exclude all.
    """
    if line.config.max_drop is not None:
        return line.config.max_drop
    return DROP_OF_AGREEMENT if line.data.train.y is None and line.metric.unit == "%" else DROP


def exact(dataset: data.DataSet, metric: data.Metric) -> bool:
    """Whether the original is compared with itself by a metric without a finite best: its quality is no number."""
    return dataset.train.y is None and not getattr(metric, "bounded", True)


def within_reach(line: Line) -> float:
    """The least quality, before fine-tuning, from which `least_quality` may be reached after it."""
    before = line.run.plan("search") or {}
    recovery = line.config.finalise.recovery
    if exact(line.data, line.metric):
        return floor({**before, "baseline_quality": line.config.limits["quality"]}, 0.0, recovery)
    return floor(before, drop(line), recovery)


def floor(before: Mapping[str, Any], max_drop: float, recovery: float) -> float:
    """The least quality, before fine-tuning, from which `max_drop` below the original may be reached after it.

    `before` is the plan of the search. What the maximal sub-network lost in the super-network counts for nobody: it
    can be had back, by the original's weights.
    """
    whole = min(before["baseline_quality"], before["maximal_quality"])
    return float(whole - max_drop - recovery * abs(whole))


def choose(trials: Sequence[Trial], objectives: Sequence[Objective], count: int, least: float) -> list[Trial]:
    """The candidates of a search that fine-tuning may bring within reach, outstanding ones by quality and gain.

    The gain is that over the maximal sub-network, see `objectives.gain`. Of the front of both, those are taken that
    together enlarge its hypervolume most, but not its ends: of these, one gains hardly anything, and one can hardly
    be saved. Their quality is at least `least`, see `floor`, and all other limits are kept. While the front has too
    few such members, the front of what is left is taken too. When no candidate is good enough, the ones of highest
    quality are taken. Raises CheckFailed when no trial was successful.
    """
    able = [trial for trial in trials if trial.status == "ok"]
    if not able:
        raise CheckFailed("search: no candidate could be evaluated; trials.csv says why; see `onnxnas check`")
    others = [trial for trial in able if trial.subnet.served({}) != Subnet()] or able
    whole = next((trial for trial in able if trial.subnet == Subnet()), None)
    gains = {t.number: gain(t.values, (whole or able[0]).values, objectives[1:]) for t in others}
    if whole is not None:
        others = [trial for trial in others if gains[trial.number] >= LEAST_GAIN] or others
    others = [trial for trial in others if within(trial.values, objectives[1:])] or others
    others = _once(others, gains)
    near = [trial for trial in others if trial.values["quality"] >= least]
    if not near:
        return sorted(others, key=lambda t: (-t.values["quality"], t.number))[:count]
    rows = {t.number: (-t.values["quality"], -float(np.log(gains[t.number]))) for t in near}
    chosen: list[Trial] = []
    while near and len(chosen) < count:
        on_front = search.non_dominated(np.array([rows[trial.number] for trial in near]))
        front = [trial for trial, on in zip(near, on_front, strict=True) if on]
        chosen += _outstanding(front, rows, count - len(chosen))
        near = [trial for trial, on in zip(near, on_front, strict=True) if not on]
    return chosen


def _once(trials: Sequence[Trial], gains: Mapping[int, float]) -> list[Trial]:
    """Of those that are the same network, the one that is served with the most gain."""
    best: dict[str, Trial] = {}
    for trial in trials:
        key = trial.subnet.served({}).key()
        if key not in best or gains[trial.number] > gains[best[key].number]:
            best[key] = trial
    return list(best.values())


def _outstanding(front: list[Trial], rows: Mapping[int, tuple[float, float]], count: int) -> list[Trial]:
    """The members that enlarge the hypervolume most, one after the other; the ends only if there are no others."""
    inner = sorted(front, key=lambda trial: rows[trial.number])
    inner = inner[1:-1] if len(inner) >= count + 2 else inner
    values = np.array([rows[trial.number] for trial in front])
    frame = search.Frame.around(values)
    taken = search.most_volume(np.array([rows[trial.number] for trial in inner]), count, frame)
    return [inner[i] for i in taken]


def chosen(line: Line, trials: Sequence[Trial], objectives: Sequence[Objective]) -> list[Trial]:
    """The finalists of a search, see `choose`.

    Where the search has judged by some of the validation samples, those that may be chosen are judged again by all of
    them first, and by the statistics of more images: the best of many are in part those that were lucky.
    """
    count, least = line.config.finalise.finalists, within_reach(line)
    if line.config.search.val_limit >= line.data.val.n:
        return choose(trials, objectives, count, least)
    short = choose(trials, objectives, SHORTLIST * count, least)
    refined = []
    with contextlib.closing(measurer(line)) as measuring:  # its process begins when something is rounded
        images = line.config.finalise.recalibration_images
        again = Candidates(line, measuring, recalibration_images=images)
        for done, trial in enumerate(short, 1):
            values = {**trial.values, "quality": again.judged(trial.subnet)}
            refined.append(dataclasses.replace(trial, values=values))
            line.step("judging again", done, len(short))
    apart = max(abs(a.values["quality"] - b.values["quality"]) for a, b in zip(short, refined, strict=True))
    line.say(
        f"finalise: {len(short)} candidates judged again by all {line.data.val.n:,} validation samples, "
        f"at most {apart:.2g} {line.metric.unit} apart"
    )
    whole = [trial for trial in trials if trial.subnet == Subnet() and trial not in short]
    return choose([*refined, *whole], objectives, count, least)


def judge(line: Line, split: str = "val") -> train.Judge:
    """Of sub-networks of the trained super-network, by all samples of a split."""
    return train.Judge(
        line.network,
        line.data,
        split,
        line.metric,
        recalibration_images=line.config.finalise.recalibration_images,
        seed=line.config.seed,
    )
