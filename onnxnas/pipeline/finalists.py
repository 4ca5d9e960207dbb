"""The finalists of a search: which, and their fine-tuning."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxnas import data, graph, search, train
from onnxnas.errors import CheckFailed
from onnxnas.pipeline import build, files, trained
from onnxnas.pipeline.line import Line
from onnxnas.pipeline.objectives import gain, within
from onnxnas.supernet import FixedSpace, SuperNetwork
from onnxnas.train.settings import TrainSettings
from onnxnas.types import Objective, Subnet, Trial

if TYPE_CHECKING:
    from onnx import ModelProto


LESSONS = "lessons"
STARTS = "starts"  # finalists of an earlier fine-tuning, to be taken further, NN.onnx
TRAINABLE = "trainable.onnx"  # a finalist with its BatchNormalization
MOST_KEPT = 1 << 30  # bytes of the teacher's answers
SHORTLIST = 4  # candidates judged again for each finalist
LEAST_GAIN = 1.2  # a candidate that is hardly faster is not worth fine-tuning


def least_quality(line: Line, whole: float) -> float:
    """The least quality that a finished network may have, when that of the original is `whole`.

    `max_drop` below it; but a network compared with itself by a metric without a finite best, such as PSNR, is
    exact, and nothing else comes near: then the limit on quality that the user gave is all that counts.
    """
    return line.config.limits["quality"] if exact(line.data, line.metric) else whole - line.config.max_drop


def exact(dataset: data.DataSet, metric: data.Metric) -> bool:
    """Whether the original is compared with itself by a metric without a finite best: its quality is no number."""
    return dataset.train.y is None and not getattr(metric, "bounded", True)


def within_reach(line: Line) -> float:
    """The least quality, before fine-tuning, from which `least_quality` may be reached after it."""
    before = line.run.plan("search") or {}
    recovery = line.config.finalise.recovery
    if exact(line.data, line.metric):
        return floor({**before, "baseline_quality": line.config.limits["quality"]}, 0.0, recovery)
    return floor(before, line.config.max_drop, recovery)


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
    others = [trial for trial in able if trial.subnet.structure != Subnet()] or able
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
        key = trial.subnet.structure.key()
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
    again = judge(line)
    refined = []
    for done, trial in enumerate(short, 1):
        quality = again.quality(trial.subnet.structure)
        refined.append(dataclasses.replace(trial, values={**trial.values, "quality": quality}))
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


def cut_out(line: Line, subnet: Subnet) -> graph.Graph:
    """A sub-network of the trained super-network as a graph of its own, BatchNormalization kept and recalibrated."""
    subnet = subnet.structure
    statistics = judge(line).statistics(subnet)
    return loaded(line, graph.rewrite(line.graph, line.network.export_edits(subnet, statistics)))


def loaded(line: Line, model: ModelProto) -> graph.Graph:
    """A model with inputs of the shapes that the original one has, bound as there."""
    shapes = {name: line.graph.tensors[name].shape for name in line.graph.inputs}
    return graph.load(model, shapes={name: shape for name, shape in shapes.items() if shape is not None})


def settings(line: Line, epochs: float, max_seconds: float | None = None) -> TrainSettings:
    """How finalists are fine-tuned."""
    final = line.config.finalise
    changes = {
        "epochs": epochs,
        "eval_every": 0.0,
        "lr": final.lr,
        "recalibration_images": final.recalibration_images,
        "max_seconds": max_seconds,
    }
    tuning = line.config.train.for_finetuning(**changes)
    return train.settled(tuning, line.graph)  # by the original, whose attention a sub-network may have lost


def teacher(line: Line) -> SuperNetwork:
    """The original network, frozen, without BatchNormalization to compute, on the run's device."""
    folded = loaded(line, build.fold(graph.rewritten(line.graph, ())).proto())
    return trained.on(train.teacher_of(folded), line.device)


def speed(line: Line, subnet: Subnet) -> dict[str, Any]:
    """How fast this process is now at fine-tuning a sub-network that knows the teacher's answers, and at asking it.

    {"samples_per_second", "teacher_samples_per_second": None where nobody asks it}
    """
    network = trained.on(SuperNetwork(FixedSpace(cut_out(line, subnet))), line.device)
    chosen, told, seed = settings(line, 1.0), train.Lessons(), line.config.seed
    asked = None
    if train.criterion(line.graph, line.data, chosen).needs_teacher:
        asked = told.teach(teacher(line), line.finishing, chosen, seed=seed, epoch=0, batches=trained.TIMED)

    def fit(network: SuperNetwork, settings: TrainSettings) -> train.TrainResult:
        return train.train(network, line.finishing, settings, directory=None, lessons=told, seed=seed)

    return {
        "samples_per_second": trained.speed(line, network, chosen, fit),
        "teacher_samples_per_second": asked,
    }


def lessons(line: Line) -> train.Lessons:
    """What the original says of the batches of this run, kept for whatever is fine-tuned on the same ones."""
    settings = line.config.train
    what = [line.finishing.digest, line.config.seed, settings.batch_size, settings.augment]
    name = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]
    return train.Lessons(line.run / LESSONS / name)


def kept_epochs(line: Line, epochs: float, pieces: int) -> int:
    """For how many epochs the teacher's answers are kept for `pieces` finalists: for all, or for none.

    For none when there is only one finalist, when nobody asks the teacher, or when they would take too much room.
    """
    if pieces < 2 or not train.criterion(line.graph, line.data, line.config.train).needs_teacher:
        return 0
    shapes = [line.graph.tensors[name].shape for name in line.graph.outputs]
    values = sum(np.inf if shape is None else float(np.prod(shape[1:])) for shape in shapes)
    whole = math.ceil(epochs)
    return whole if 4 * values * line.finishing.train.n * whole <= MOST_KEPT else 0


def teach(line: Line, epoch: int, epochs: int) -> None:
    """Write what the teacher says of the batches of one epoch, of so many, unless that is done."""
    kept = lessons(line)
    if not kept.has(epoch):
        chosen = settings(line, 1.0)
        kept.teach(teacher(line), line.finishing, chosen, seed=line.config.seed, epoch=epoch)
    line.step("answers of the original", epoch + 1, epochs)


def tune(line: Line, index: int, subnet: Subnet, epochs: float, limit: float | None) -> dict[str, Any]:
    """Fine-tune finalist `index` for `epochs` or `limit` seconds and write finalists/NN/model.onnx, trainable.onnx.

    It begins as it is in starts/NN.onnx, if that is there, else in the super-network. Returns {"subnet",
    "val_quality"}. A finalist that is complete is not touched again; one that was interrupted continues.
    """
    place = line.run / "finalists" / f"{index:02d}"
    done = place / "done.json"
    if done.is_file() and (place / "model.onnx").is_file():
        return dict(files.read_json(done))
    start = line.run / STARTS / f"{index:02d}.onnx"
    source = loaded(line, graph.parse(start.read_bytes())) if start.is_file() else cut_out(line, subnet)
    edits: Sequence[Any] = ()
    told: dict[str, Any] = {"subnet": subnet.to_json(), "val_quality": None}
    if epochs > 0:

        def watch(row: Mapping[str, Any]) -> None:
            if "loss" in row:
                line.step(f"finalist {index}", row["epoch"], epochs, f"loss {row['loss']}")

        tuned = train.finetune(
            source,
            line.finishing,
            settings(line, epochs, limit),
            teacher=teacher(line),
            lessons=lessons(line),
            directory=place,
            seed=line.config.seed,
            metric=line.metric,
            on_event=watch,
        )
        line.say(
            f"finalist {index}: {tuned.before:.2f} -> {tuned.after:.2f} {line.metric.unit} on validation"
        )
        edits = tuned.edits()
        told["val_quality"] = max(tuned.before, tuned.after)
    finished = graph.rewritten(source, edits)
    place.mkdir(parents=True, exist_ok=True)
    graph.save(finished.proto(), place / TRAINABLE)
    graph.save(build.fold(finished).proto(), place / "model.onnx")
    files.write_json(done, told)
    return told
