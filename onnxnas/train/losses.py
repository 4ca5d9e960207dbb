"""Losses: against labels, and against a teacher's outputs.

Outputs are the network's, in order. Which of them are class scores is decided once, from the graph and the
task (`Heads`): scores get cross entropy and Kullback-Leibler divergence at a temperature T (times T^2, Hinton
et al. 2015), everything else the mean squared error, divided by the teacher's variance when it distils so
that its size does not depend on the unit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from onnxnas.data import DataSet, ranks_classes
from onnxnas.errors import ConfigError
from onnxnas.graph import Graph
from onnxnas.plugins import is_reference, load_object
from onnxnas.train.settings import TrainSettings

Outputs = Sequence[Tensor]
TaskLoss = Callable[[Outputs, Tensor], Tensor]
DistillationLoss = Callable[[Outputs, Outputs], Tensor]

#: Labels with this value are ignored (segmentation).
IGNORED_LABEL = 255
_TINY = 1e-8


@dataclass(frozen=True)
class Heads:
    """What each output is: 'scores' (logits), 'probabilities' (their softmax), 'dense', 'other'.

    The first output has its classes on `class_axis`, others on the second.
    """

    kinds: tuple[Literal["scores", "probabilities", "dense", "other"], ...]
    class_axis: int = 1

    @classmethod
    def of(cls, graph: Graph, task: str, metric: str = "", class_axis: int = 1) -> Heads:
        """From the graph's outputs and the data's task and metric.

        Without labels the first output is taken for scores when the metric is one of classes, and a single output
        [n, k] always, as the metric `fidelity` does.
        """
        kinds: list[Literal["scores", "probabilities", "dense", "other"]] = []
        classes = task in ("classification", "segmentation") or (
            task == "distillation" and ranks_classes(metric)
        )
        for index, name in enumerate(graph.outputs):
            info, producer = graph.tensors[name], graph.producer(name)
            rank = len(info.shape) if info.shape is not None else 0
            vector = rank == 2 and info.shape is not None and info.shape[1] > 1
            if info.dtype is not None and info.dtype.kind != "f":
                kinds.append("other")
            elif producer is not None and producer.op_type == "Softmax" and rank >= 2:
                kinds.append("probabilities" if vector or rank == 4 or (index == 0 and classes) else "dense")
            elif (index == 0 and classes) or (task == "distillation" and vector and len(graph.outputs) == 1):
                kinds.append("scores")
            else:
                kinds.append("dense")
        return cls(tuple(kinds), class_axis)

    def logits(self, index: int, output: Tensor) -> Tensor:
        """Output `index` as logits with the class axis second, [n, classes, ...]."""
        if self.kinds[index] == "probabilities":
            output = output.clamp_min(_TINY).log()
        if index == 0 and 1 < self.class_axis < output.dim():
            output = output.movedim(self.class_axis, 1)
        return output.flatten(1) if output.dim() > 2 and output[0].numel() == output.shape[1] else output


def task_loss(name: str, heads: Heads) -> TaskLoss:
    """The loss against labels called `name`: cross_entropy, mse, l1 or `module:name` (outputs, y) -> Tensor.

    Raises ConfigError.
    """
    if is_reference(name):
        return load_object(name, what="loss")  # type: ignore[no-any-return]
    if name == "cross_entropy":

        def cross_entropy(outputs: Outputs, y: Tensor) -> Tensor:
            return F.cross_entropy(heads.logits(0, outputs[0]), y, ignore_index=IGNORED_LABEL)

        def plain(outputs: Outputs, y: Tensor) -> Tensor:
            return F.cross_entropy(heads.logits(0, outputs[0]), y)

        # 255 is an ordinary class of a classifier of more than 255
        return lambda outputs, y: (plain if y.dim() == 1 else cross_entropy)(outputs, y)
    if name == "mse":
        return lambda outputs, y: F.mse_loss(outputs[0], y.to(outputs[0].dtype).reshape(outputs[0].shape))
    if name == "l1":
        return lambda outputs, y: F.l1_loss(outputs[0], y.to(outputs[0].dtype).reshape(outputs[0].shape))
    raise ConfigError(
        f"loss {name!r} is unknown; expected cross_entropy, mse, l1, distillation or module:name"
    )


def distillation_loss(heads: Heads, temperature: float) -> DistillationLoss:
    """Sum over the outputs of how far a student's are from a teacher's; 0 when they agree."""

    def loss(student: Outputs, teacher: Outputs) -> Tensor:
        total = student[0].new_zeros(())
        for index, (mine, wanted) in enumerate(zip(student, teacher, strict=True)):
            kind = heads.kinds[index]
            if kind == "other":
                continue
            if kind == "dense":
                total = total + F.mse_loss(mine, wanted) / (wanted.var(correction=0) + _TINY)
                continue
            a = F.log_softmax(heads.logits(index, mine) / temperature, dim=1)
            b = F.log_softmax(heads.logits(index, wanted) / temperature, dim=1)
            each = F.kl_div(a, b, reduction="none", log_target=True).sum(1)
            total = total + each.mean() * temperature**2
        return total

    return loss


class Criterion:
    """The loss of one sub-network: (1 - w) x labels + w x teacher; only the teacher when there are no labels.

    `graph` is the network's, which says what its outputs are. Raises ConfigError for an unknown loss.
    """

    def __init__(self, graph: Graph, data: DataSet, loss: str, weight: float, temperature: float) -> None:
        self.heads = heads = Heads.of(graph, data.task, data.metric, data.class_axis)
        name = data.loss if loss == "auto" else loss
        labelled = data.train.y is not None and name != "distillation"
        self.labels = task_loss(name, heads) if labelled else None
        self.weight = weight if labelled else 1.0
        self.distil = distillation_loss(heads, temperature)

    @property
    def needs_teacher(self) -> bool:
        """Whether a teacher's outputs have any weight."""
        return self.weight > 0

    def __call__(self, outputs: Outputs, y: Tensor | None, teacher: Outputs | None) -> Tensor:
        if self.labels is None or y is None:
            if teacher is None:
                raise ConfigError("there are neither labels nor a teacher to learn from")
            return self.distil(outputs, teacher)
        if teacher is None or self.weight == 0:
            return self.labels(outputs, y)
        if self.weight == 1:
            return self.distil(outputs, teacher)
        return (1 - self.weight) * self.labels(outputs, y) + self.weight * self.distil(outputs, teacher)


def criterion(graph: Graph, data: DataSet, settings: TrainSettings) -> Criterion:
    """The loss that the settings say. Raises ConfigError."""
    return Criterion(graph, data, settings.loss, settings.distillation, settings.temperature)


def detached(outputs: Outputs) -> tuple[Tensor, ...]:
    """The outputs without their history."""
    return tuple(output.detach() for output in outputs)
