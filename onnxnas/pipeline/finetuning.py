"""How finalists are fine-tuned."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxnas import graph, train
from onnxnas.pipeline import build, files, trained
from onnxnas.pipeline.candidates import untouched
from onnxnas.pipeline.finalists import judge
from onnxnas.pipeline.line import Line
from onnxnas.supernet import FixedSpace, SuperNetwork
from onnxnas.train.settings import TrainSettings
from onnxnas.types import Subnet

if TYPE_CHECKING:
    from onnx import ModelProto


LESSONS = "lessons"
STARTS = "starts"  # finalists of an earlier fine-tuning, to be taken further, NN.onnx
TRAINABLE = "trainable.onnx"  # a finalist with its BatchNormalization
MOST_KEPT = 1 << 30  # bytes of the teacher's answers


def cut_out(line: Line, subnet: Subnet, *, recalibrated: bool = True) -> graph.Graph:
    """A sub-network of the trained super-network as a graph of its own, BatchNormalization kept."""
    subnet = subnet.structure
    statistics = judge(line).statistics(subnet) if recalibrated else None
    return loaded(line, graph.rewrite(line.graph, line.network.export_edits(subnet, statistics)))


def loaded(line: Line, model: ModelProto) -> graph.Graph:
    """A model with inputs of the shapes that the original one has, bound as there."""
    shapes = {name: line.graph.tensors[name].shape for name in line.graph.inputs}
    return graph.load(model, shapes={name: shape for name, shape in shapes.items() if shape is not None})


def settings(line: Line, epochs: float, max_seconds: float | None = None) -> TrainSettings:
    """How finalists are fine-tuned."""
    final = line.config.finalise
    changes: dict[str, Any] = {
        "epochs": epochs,
        "eval_every": 0.0,
        "lr": final.lr,
        "recalibration_images": final.recalibration_images,
        "max_seconds": max_seconds,
    }
    for name in ("weight_decay", "mixed", "mirrored", "distinct_epochs"):
        if getattr(final, name) is not None:
            changes[name] = getattr(final, name)
    tuning = line.config.train.for_finetuning(**changes)
    return train.settled(tuning, line.graph)  # by the original, whose attention a sub-network may have lost


def original(line: Line) -> SuperNetwork:
    """The original network, frozen, without BatchNormalization to compute, on the run's device."""
    return _teaching(line, line.graph)


def teacher(line: Line, first: SuperNetwork) -> train.Teacher:
    """Whom finalists learn from: the original, `first`, or that and the finalists of before (`_colleagues`)."""
    others = [_teaching(line, loaded(line, graph.parse(content))) for content in _colleagues(line)]
    return train.Ensemble([first, *others]) if others else first


def _teaching(line: Line, network: graph.Graph) -> SuperNetwork:
    folded = loaded(line, build.fold(graph.rewritten(network, ())).proto())
    return trained.on(train.teacher_of(folded), line.device)


def _colleagues(line: Line) -> list[bytes]:
    """The files of finalists of before that teach too, in order."""
    if line.config.finalise.teachers == "original":
        return []
    return [path.read_bytes() for path in sorted((line.run / STARTS).glob("*.onnx"))]


def weights_of(subnets: Sequence[Subnet]) -> list[int]:
    """For each finalist the first one, counted from 1, that has its weights: of the same structure.

    Fine-tuning knows nothing of numbers or of how a network is served, so one will do for those. The original in other
    numbers is not fine-tuned (`candidates.untouched`) and has nobody else's.
    """
    first: dict[tuple[str, bool], int] = {}
    return [
        first.setdefault((subnet.structure.key(), untouched(subnet)), index)
        for index, subnet in enumerate(subnets, 1)
    ]


def perform(line: Line, request: Mapping[str, Any], group: train.Group) -> dict[str, Any]:
    """Do a request about a finalist, see `worker.perform`, together with the other processes of the group.

    All of them do the same; only the first writes and says something.
    """
    subnet = Subnet.from_json(request["subnet"])
    if request["do"] == "speed":
        return speed(line, subnet, group)
    return tune(line, request["index"], subnet, request["epochs"], request["limit"], group)


def speed(line: Line, subnet: Subnet, group: train.Group) -> dict[str, Any]:
    """How fast the group is now at fine-tuning a sub-network that knows the teacher's answers, and at asking it.

    {"samples_per_second", "teacher_samples_per_second": None where nobody asks it}
    """
    network = SuperNetwork(FixedSpace(cut_out(line, subnet, recalibrated=False)))
    network = trained.on(network, line.device)
    chosen, seed = settings(line, 1.0), line.config.seed
    told = train.Lessons(mirrored=chosen.mirrored)
    asked = None
    if train.criterion(line.graph, line.data, chosen).needs_teacher:
        asked = group.size * told.teach(
            teacher(line, original(line)), line.finishing, chosen, seed=seed, epoch=0, batches=trained.TIMED
        )

    def fit(network: SuperNetwork, settings: TrainSettings) -> train.TrainResult:
        return train.train(
            network, line.finishing, settings, directory=None, lessons=told, seed=seed, group=group
        )

    return {
        "samples_per_second": trained.speed(line.finishing.train.n, network, chosen, fit),
        "teacher_samples_per_second": asked,
    }


def lessons(line: Line) -> train.Lessons:
    """What the teacher says of the batches of this run, kept for whatever is fine-tuned on the same ones."""
    chosen = settings(line, 1.0)
    what = [
        line.finishing.digest,
        line.config.seed,
        chosen.batch_size,
        chosen.augment,
        chosen.mixed,
        chosen.mirrored,
    ]
    what += [hashlib.sha256(content).hexdigest() for content in _colleagues(line)]
    name = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]
    return train.Lessons(line.run / LESSONS / name, mirrored=chosen.mirrored)


def kept_epochs(line: Line, epochs: float, pieces: int) -> int:
    """For how many epochs the teacher's answers are kept for `pieces` finalists: for all distinct ones, or for none.

    For none when nobody would read them twice, when nobody asks the teacher, or when they would take too much room.
    """
    chosen = settings(line, 1.0)
    distinct = min(epochs, chosen.distinct_epochs or math.inf)
    once = pieces < 2 and distinct >= epochs and not chosen.mirrored
    if once or not train.criterion(line.graph, line.data, chosen).needs_teacher:
        return 0
    shapes = [line.graph.tensors[name].shape for name in line.graph.outputs]
    values = sum(np.inf if shape is None else float(np.prod(shape[1:])) for shape in shapes)
    whole = math.ceil(distinct)
    return whole if 4 * values * line.finishing.train.n * whole <= MOST_KEPT else 0


def teach(line: Line, epoch: int, epochs: int) -> None:
    """Write what the teacher says of the batches of one epoch, of so many, unless that is done."""
    kept = lessons(line)
    if not kept.has(epoch):
        chosen = settings(line, 1.0)
        kept.teach(teacher(line, original(line)), line.finishing, chosen, seed=line.config.seed, epoch=epoch)
    line.step("answers of the teacher", epoch + 1, epochs)


def tune(
    line: Line, index: int, subnet: Subnet, epochs: float, limit: float | None, group: train.Group
) -> dict[str, Any]:
    """Fine-tune finalist `index` for `epochs` or `limit` seconds and write finalists/NN/model.onnx, trainable.onnx.

    It begins as it is in starts/NN.onnx, if that is there, else in the super-network; the original in other numbers is
    left as it is. Returns {"subnet", "val_quality": None where nothing was fine-tuned}. A finalist that is complete is
    not touched again; one that was interrupted continues.
    """
    place = line.run / "finalists" / f"{index:02d}"
    done = place / "done.json"
    if done.is_file() and (place / "model.onnx").is_file():
        return dict(files.read_json(done))
    source = _start(line, index, subnet)
    edits: Sequence[Any] = ()
    told: dict[str, Any] = {"subnet": subnet.to_json(), "val_quality": None}
    if epochs > 0:

        def watch(row: Mapping[str, Any]) -> None:
            if "loss" in row:
                line.step(f"finalist {index}", row["epoch"], epochs, f"loss {row['loss']}")

        first = original(line)
        tuned = train.finetune(
            source,
            line.finishing,
            settings(line, epochs, limit),
            teacher=teacher(line, first),
            original=first,
            lessons=lessons(line),
            directory=place,
            seed=line.config.seed,
            metric=line.metric,
            on_event=watch,
            group=group,
        )
        if group.first:
            line.say(
                f"finalist {index}: {tuned.before:.2f} -> {tuned.after:.2f} {line.metric.unit} on validation"
            )
        edits = tuned.edits()
        told["val_quality"] = tuned.after if tuned.kept else tuned.before
    if not group.first:
        return told
    finished = graph.rewritten(source, edits)
    place.mkdir(parents=True, exist_ok=True)
    graph.save(finished.proto(), place / TRAINABLE)
    graph.save(build.fold(finished).proto(), place / "model.onnx")
    files.write_json(done, told)
    return told


def _start(line: Line, index: int, subnet: Subnet) -> graph.Graph:
    """What a finalist is before it is fine-tuned."""
    if untouched(subnet):
        return line.original
    start = line.run / STARTS / f"{index:02d}.onnx"
    return loaded(line, graph.parse(start.read_bytes())) if start.is_file() else cut_out(line, subnet)
