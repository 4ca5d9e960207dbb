"""Quality metrics: higher is better; percent or dB; computed batch by batch.

| name | unit | is |
|---|---|---|
| `top1`, `top3`, `top5`, `topk` (k = 5) | % | samples whose label is among the k highest outputs |
| `f1` | % | mean over the classes present of 2 TP / (2 TP + FP + FN) |
| `miou` | % | mean over the classes present of intersection / union, ignoring label 255 |
| `psnr`, `psnr255` | dB | mean over images of 10 log10(peak^2 / MSE), peak 1 or as named |
| `r2` | % | 100 (1 - squared error / variance of the targets) over all outputs |
| `agreement` | % | samples (or positions) where the highest output is the original's |
| `fidelity` | % | `agreement` where the output is [n, classes], else `r2` against the original's outputs |
| `module:name` | | a `Metric`, or a function (outputs, targets) -> float over the whole set |

Without labels the targets are the original's outputs; the label is then the class that these rank highest.
Outputs that are NaN count as wrong, or as -inf where an error is averaged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from onnxnas.data.types import IGNORE, Array, Task
from onnxnas.data.validate import check_known
from onnxnas.errors import DataError
from onnxnas.plugins import load_object

Arrays = Array | Sequence[Array]
_EMPTY = "a metric was asked for without samples"


@runtime_checkable
class Meter(Protocol):
    """One evaluation in progress: `update` with each batch, then `compute`."""

    def update(self, outputs: Arrays, targets: Arrays) -> None: ...

    def compute(self) -> float: ...


@runtime_checkable
class Metric(Protocol):
    """How good outputs are. Stateless: `start` gives an independent meter each time.

    `outputs` are the model's outputs in order (or the only one); `targets` the labels, or, when the task is
    distillation, the original model's outputs in the same order.
    """

    @property
    def name(self) -> str: ...

    @property
    def unit(self) -> str: ...

    def start(self) -> Meter: ...

    def evaluate(self, outputs: Arrays, targets: Arrays) -> float: ...


@dataclass(frozen=True)
class NamedMetric:
    """A metric made of a meter's constructor. `bounded`: the best value means that nothing differs noticeably."""

    name: str
    unit: str
    meter: Callable[[], Meter]
    bounded: bool = True

    def start(self) -> Meter:
        return self.meter()

    def evaluate(self, outputs: Arrays, targets: Arrays) -> float:
        """The metric of a whole set at once."""
        meter = self.start()
        meter.update(outputs, targets)
        return meter.compute()


#: Metrics of classes: an output that is judged by one holds scores of classes.
_OF_CLASSES = re.compile(r"top(\d+|k)|f1|miou|agreement")
_KNOWN = ("top1", "top3", "top5", "topk", "f1", "miou", "psnr", "psnr255", "r2", "agreement", "fidelity")


def check_metric(name: str) -> None:
    """Whether `name` is that of a metric; a `module:name` is not imported.

    Raises:
        DataError: it is not; the nearest known name is suggested.
    """
    if not re.fullmatch(r"top[1-9]\d*|psnr[1-9]\d*", name):
        check_known(name, _KNOWN, "metric")


def default_metric(task: Task, y: Array | None) -> str:
    """The metric of a task that names none."""
    if task == "regression":
        return "psnr" if y is not None and y.ndim == 4 else "r2"
    return {"classification": "top1", "segmentation": "miou", "distillation": "fidelity"}[task]


def ranks_classes(name: str) -> bool:
    """Whether the metric of this name takes the outputs for scores of classes."""
    return _OF_CLASSES.fullmatch(name) is not None


def get_metric(name: str, class_axis: int | None = None) -> Metric:
    """The metric of this name.

    `class_axis` is the axis that holds classes where the targets are outputs too (`data.axes`); by default the
    second, or the last of three.

    Raises:
        DataError: unknown name.
        ConfigError: `module:name` that cannot be imported.
    """
    if ":" in name:
        return _from_user(name)
    check_metric(name)
    if match := re.fullmatch(r"top(\d+|k)", name):
        k = 5 if match[1] == "k" else int(match[1])
        return NamedMetric(name, "%", lambda: _TopK(k, class_axis))
    if match := re.fullmatch(r"psnr(\d*)", name):
        peak = float(match[1] or 1)
        return NamedMetric(name, "dB", lambda: _Psnr(peak), bounded=False)
    meters: dict[str, Callable[[], Meter]] = {
        "f1": lambda: _Confusion("f1", class_axis),
        "miou": lambda: _Confusion("iou", class_axis),
        "r2": _R2,
        "agreement": lambda: _Agreement(class_axis),
        "fidelity": _Fidelity,
    }
    return NamedMetric(name, "%", meters[name])


def _from_user(name: str) -> Metric:
    found = load_object(name, what="metric")
    if isinstance(found, type):
        found = found()
    if isinstance(found, Metric):
        return found
    if not callable(found):
        raise DataError(f"metric {name!r}: expected a Metric or a function (outputs, targets) -> float")
    return NamedMetric(name, "", lambda: _Whole(found))


def _first(arrays: Arrays) -> Array:
    return arrays if isinstance(arrays, np.ndarray) else arrays[0]


def _all(arrays: Arrays) -> Sequence[Array]:
    return [arrays] if isinstance(arrays, np.ndarray) else arrays


def _scores(output: Array, labels: Array, known: int | None = None) -> Array:
    """Outputs with the class axis moved to the end: labels.shape + [classes]; `known` is tried first.

    Raises:
        DataError: no axis of the outputs is left over by the labels.
    """
    if labels.ndim == 1:
        output = (
            output.reshape(len(output), -1) if output.size == len(output) * max(output.shape[1:]) else output
        )
    for axis in (known or 1, 1, output.ndim - 1):
        if 0 < axis < output.ndim and output.shape[:axis] + output.shape[axis + 1 :] == labels.shape:
            if output.shape[axis] < 2:
                break
            return np.moveaxis(output, axis, -1)
    raise DataError(f"outputs {output.shape} are not scores of two or more classes for labels {labels.shape}")


def _labels(outputs: Arrays, targets: Arrays, axis: int | None) -> Array:
    """The targets as class labels; where they are outputs themselves, the classes these rank highest."""
    mine, wanted = _first(outputs), _first(targets)
    if wanted.dtype.kind != "f" or wanted.shape != mine.shape or wanted.ndim < 2:
        return wanted
    return np.asarray(wanted.argmax(_axis(wanted, axis)))


def _axis(output: Array, axis: int | None) -> int:
    return axis if axis is not None and axis < output.ndim else 1 if output.ndim != 3 else -1


class _Share:
    """Percent of things that were right."""

    def __init__(self) -> None:
        self.right = 0
        self.total = 0

    def add(self, right: Array) -> None:
        self.right += int(right.sum())
        self.total += right.size

    def compute(self) -> float:
        """The percentage.

        Raises:
            DataError: no samples were given.
        """
        return 100.0 * self.right / _some(self.total)


class _TopK(_Share):
    def __init__(self, k: int, axis: int | None) -> None:
        super().__init__()
        self.k, self.axis = k, axis

    def update(self, outputs: Arrays, targets: Arrays) -> None:
        labels = _labels(outputs, targets, self.axis)
        scores = _scores(_first(outputs), labels, self.axis)
        own = np.take_along_axis(scores, labels[..., None].astype(np.int64), -1)
        classes = np.arange(scores.shape[-1])
        # ties go to the lower class number, as in argmax
        ahead = (scores > own) | ((scores == own) & (classes < labels[..., None]))
        self.add((ahead.sum(-1) < self.k) & ~np.isnan(scores).any(-1))


class _Agreement(_Share):
    def __init__(self, axis: int | None = None) -> None:
        super().__init__()
        self.axis = axis

    def update(self, outputs: Arrays, targets: Arrays) -> None:
        mine, original = _first(outputs), _first(targets)
        if mine.shape != original.shape or mine.ndim < 2:
            raise DataError(
                f"agreement of outputs {mine.shape} with {original.shape}: equal shapes [n, classes] needed"
            )
        axis = _axis(mine, self.axis)
        self.add((mine.argmax(axis) == original.argmax(axis)) & ~np.isnan(mine).any(axis))


class _Confusion:
    """Counts per class, from which F1 or intersection over union."""

    def __init__(self, kind: str, axis: int | None) -> None:
        self.kind, self.axis = kind, axis
        self.matrix = np.zeros((0, 0), np.int64)

    def update(self, outputs: Arrays, targets: Arrays) -> None:
        labels = _labels(outputs, targets, self.axis)
        scores = _scores(_first(outputs), labels, self.axis)
        k = scores.shape[-1]
        if self.matrix.size == 0:
            self.matrix = np.zeros((k, k + 1), np.int64)
        # the last column collects outputs that are NaN
        predicted = np.where(np.isnan(scores).any(-1), k, scores.argmax(-1))
        valid = np.ones(labels.shape, bool) if self.kind == "f1" else labels != IGNORE
        index = labels[valid].astype(np.int64) * (k + 1) + predicted[valid]
        self.matrix += np.bincount(index, minlength=k * (k + 1)).reshape(k, k + 1)

    def compute(self) -> float:
        """Mean over the classes that occur, in labels or predictions.

        Raises:
            DataError: no samples were given.
        """
        _some(int(self.matrix.sum()))
        k = len(self.matrix)
        hit = np.diagonal(self.matrix[:, :k]).astype(np.float64)
        wrong = self.matrix.sum(1) + self.matrix[:, :k].sum(0) - 2 * hit
        seen = hit + wrong > 0
        weight = 2.0 if self.kind == "f1" else 1.0
        return float(100 * np.mean(weight * hit[seen] / (weight * hit[seen] + wrong[seen])))


class _Psnr:
    def __init__(self, peak: float) -> None:
        self.peak = peak
        self.sum = 0.0
        self.total = 0

    def update(self, outputs: Arrays, targets: Arrays) -> None:
        error = _difference(_first(outputs), _first(targets)).reshape(len(_first(targets)), -1)
        mse = np.maximum((error**2).mean(1), 1e-12 * self.peak**2)
        self.sum += -np.inf if np.isnan(mse).any() else float((10 * np.log10(self.peak**2 / mse)).sum())
        self.total += len(error)

    def compute(self) -> float:
        """Mean over the images; an exact image counts as 120 dB.

        Raises:
            DataError: no samples were given.
        """
        return self.sum / _some(self.total)


class _R2:
    """Sums from which the share of the variance explained, about the mean of each output."""

    def __init__(self) -> None:
        self.error = 0.0
        self.total = 0
        self.count: list[int] = []
        self.mean: list[float] = []
        self.spread: list[float] = []

    def update(self, outputs: Arrays, targets: Arrays) -> None:
        mine, wanted = _all(outputs), _all(targets)
        for i, target in enumerate(wanted):
            if i == len(self.count):
                self.count.append(0)
                self.mean.append(0.0)
                self.spread.append(0.0)
            error = float((_difference(mine[i], target) ** 2).sum())
            self.error += np.inf if np.isnan(error) else error
            self.total += target.size
            # Chan, Golub and LeVeque: merge the batch's mean and sum of squares into the running ones
            values = target.astype(np.float64)
            mean, spread = float(values.mean()), float(values.var()) * values.size
            both = self.count[i] + values.size
            self.spread[i] += spread + (mean - self.mean[i]) ** 2 * self.count[i] * values.size / both
            self.mean[i] += (mean - self.mean[i]) * values.size / both
            self.count[i] = both

    def compute(self) -> float:
        """100 when exact, 0 for a constant mean, negative when worse than that.

        Raises:
            DataError: no samples were given.
        """
        _some(self.total)
        if self.error == 0.0:
            return 100.0
        spread = sum(self.spread)
        return 100.0 * (1.0 - self.error / spread) if spread > 0 else -float("inf")


class _Fidelity:
    """`agreement` for one output [n, classes], `r2` for anything else: decided by the first batch."""

    def __init__(self) -> None:
        self.inner: Meter | None = None

    def update(self, outputs: Arrays, targets: Arrays) -> None:
        if self.inner is None:
            original = _all(targets)
            scores = len(original) == 1 and original[0].ndim == 2 and original[0].shape[1] > 1
            self.inner = _Agreement() if scores else _R2()
        self.inner.update(outputs, targets)

    def compute(self) -> float:
        """As the inner metric.

        Raises:
            DataError: no samples were given.
        """
        if self.inner is None:
            raise DataError(_EMPTY)
        return self.inner.compute()


class _Whole:
    """Collects everything for a user's function of the whole set."""

    def __init__(self, function: Callable[[Any, Any], float]) -> None:
        self.function = function
        self.outputs: list[list[Array]] = []
        self.targets: list[list[Array]] = []
        self.single = (True, True)

    def update(self, outputs: Arrays, targets: Arrays) -> None:
        self.single = (isinstance(outputs, np.ndarray), isinstance(targets, np.ndarray))
        self.outputs.append(list(_all(outputs)))
        self.targets.append(list(_all(targets)))

    def compute(self) -> float:
        """What the function returns for the arrays joined along the first axis.

        Raises:
            DataError: no samples were given.
        """
        _some(len(self.outputs))
        joined = [
            [np.concatenate(part) for part in zip(*side, strict=True)]
            for side in (self.outputs, self.targets)
        ]
        outputs, targets = (side[0] if one else side for side, one in zip(joined, self.single, strict=True))
        return float(self.function(outputs, targets))


def _difference(output: Array, target: Array) -> Array:
    if output.shape != target.shape:
        raise DataError(f"outputs {output.shape} and targets {target.shape} differ in shape")
    return output.astype(np.float64) - target.astype(np.float64)


def _some(total: int) -> int:
    if total == 0:
        raise DataError(_EMPTY)
    return total
