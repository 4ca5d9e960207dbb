"""A short training of one chosen sub-network, on its own.

The sub-network has been cut out of the file before, so only its own weights are trained and a step costs what
the small network costs. Nothing else of the super-network is changed by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from onnxnas.data import DataSet, Metric, metric_of
from onnxnas.graph import Graph
from onnxnas.supernet import FixedSpace, SuperNetwork
from onnxnas.train.evaluate import Judge
from onnxnas.train.group import Group
from onnxnas.train.lessons import Lessons
from onnxnas.train.loop import train
from onnxnas.train.record import Event, TrainResult
from onnxnas.train.settings import TrainSettings
from onnxnas.train.teacher import Teacher
from onnxnas.types import Subnet
from rewriters.edits import Edit, SetInitializer


@dataclass(frozen=True, eq=False)
class FineTuned:
    """`weights` by initializer name of the graph that was trained, recalibrated statistics included.

    `before` and `after` are qualities on the validation split, both recalibrated. When training made it
    worse, `weights` are those before it (`kept` False) with recalibrated statistics; not where it was trained on that
    split too (`DataSet.seen`): a network that knows fewer of its samples by heart may be the better one.
    """

    weights: Mapping[str, NDArray[Any]]
    before: float
    after: float
    kept: bool
    training: TrainResult

    def edits(self) -> tuple[Edit, ...]:
        """For `graph.rewrite` of the same graph."""
        return tuple(SetInitializer(name, value) for name, value in self.weights.items())


def finetune(
    graph: Graph,
    data: DataSet,
    settings: TrainSettings,
    *,
    teacher: Teacher | None,
    original: Teacher | None = None,
    lessons: Lessons | None = None,
    directory: Path | None = None,
    seed: int = 0,
    metric: Metric | None = None,
    on_event: Event | None = None,
    group: Group | None = None,
) -> FineTuned:
    """Train the network of `graph` (a sub-network as ONNX, loaded again) on labels and the teacher's outputs.

    `teacher` is `teacher_of` the original model, or an `Ensemble`; None: the sub-network as it is. Where there are no
    labels quality is agreement with `original` (None: with the teacher). `lessons` have what the teacher says of the
    batches of this seed. `directory` holds the checkpoints. In a `group` all processes call this alike, see `train`,
    and all get what was trained. Raises as `train`.
    """
    net = SuperNetwork(FixedSpace(graph))
    if teacher is not None:
        net.to(teacher.device)
    metric = metric or metric_of(data)
    settings = settings.for_finetuning()
    judge = Judge(
        net,
        data,
        "val",
        metric,
        recalibration_images=settings.recalibration_images,
        limit=settings.eval_images,
        seed=seed,
        teacher=original or teacher,
    )
    only = Subnet()
    statistics = judge.statistics(only)
    before = judge.quality(only, statistics)
    old = net.weights()
    result = train(
        net,
        data,
        settings,
        directory=directory,
        teacher=teacher,
        lessons=lessons,
        seed=seed,
        metric=metric,
        on_event=on_event,
        group=group,
    )
    tuned = judge.statistics(only)
    after = judge.quality(only, tuned)
    kept = data.seen or after >= before
    if not kept:
        net.load(old)
        tuned = statistics
    net.activate(only)
    return FineTuned(net.live_values(tuned), before, after, kept, result)
