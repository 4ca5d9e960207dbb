"""How good a sub-network is: statistics first, then the metric.

BatchNormalization statistics are counted from training images augmented as in training: from plain ones, a
CIFAR ResNet-20 loses 2.8 points before any training.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from onnxnas.data import DataSet
from onnxnas.data.metrics import Metric
from onnxnas.data.torch_batches import TorchBatches
from onnxnas.supernet import FixedSpace, Statistics, SuperNetwork
from onnxnas.train.teacher import Teacher, frozen
from onnxnas.types import Subnet

_CALIBRATION_EPOCH = 1_000_003  # far from any epoch of training: other crops, other flips
_CACHE_BYTES = 512 * 2**20
_LARGEST = 1 << 28  # elements of all values of a batch, of which a few are held at once


class Judge:
    """Evaluates many sub-networks of one super-network on the same images.

    `split` is 'train', 'val' or 'test'; `limit` its number of images (the first ones). Without labels the
    targets are the outputs of `teacher` (default: the original network). Batches are kept in memory when
    they are small. `batch_size` is lowered where samples are large. Arithmetic is float32 unless `bf16`.
    """

    def __init__(
        self,
        net: SuperNetwork,
        data: DataSet,
        split: str,
        metric: Metric,
        *,
        recalibration_images: int = 2048,
        limit: int | None = None,
        seed: int = 0,
        batch_size: int = 256,
        teacher: Teacher | None = None,
        bf16: bool = False,
    ) -> None:
        self.net, self.metric, self.bf16 = net, metric, bf16
        self.batch_size = batch_of(net, batch_size)
        self.limit, self.seed = limit, seed
        self.recalibration_images = min(recalibration_images, data.train.n)
        self._judged = TorchBatches(
            data.split(split), data, device=net.device, channels_last=net.channels_last
        )
        self._training = TorchBatches(data.train, data, device=net.device, channels_last=net.channels_last)
        self._teacher = teacher
        self._cached: dict[str, list[tuple[dict[str, Tensor], Any]]] = {}

    def statistics(self, subnet: Subnet) -> Statistics:
        """Recalibrated statistics; empty when the network has no BatchNormalization."""
        if not self.net.mode.keys:
            return Statistics({}, {})
        with as_judged(self.net, bf16=self.bf16):
            return self.net.recalibrate((x for x, _ in self._calibration()), subnet)

    @torch.no_grad()
    def quality(self, subnet: Subnet, statistics: Statistics | None = None) -> float:
        """The metric of `subnet`, recalibrated first unless `statistics` are given."""
        if statistics is None:
            statistics = self.statistics(subnet)
        meter = self.metric.start()
        with as_judged(self.net, bf16=self.bf16):
            self.net.activate(subnet, statistics if self.net.mode.keys else None)
            for x, target in self._images():
                meter.update(_arrays(self.net(x)), target)
        return float(meter.compute())

    def _calibration(self) -> Iterator[tuple[dict[str, Tensor], Any]]:
        size = min(self.batch_size, self.recalibration_images)
        batches = self._training.epoch(
            size, seed=self.seed, epoch=_CALIBRATION_EPOCH, limit=self.recalibration_images
        )
        return self._kept("calibration", ((x, None) for x, _ in batches))

    def _images(self) -> Iterator[tuple[dict[str, Tensor], Any]]:
        def make() -> Iterator[tuple[dict[str, Tensor], Any]]:
            for x, y in self._judged.epoch(
                self.batch_size, shuffle=False, augment=False, drop_last=False, limit=self.limit
            ):
                yield x, self._original(x) if y is None else y.cpu().numpy()

        return self._kept("images", make())

    def _original(self, x: dict[str, Tensor]) -> NDArray[Any] | list[NDArray[Any]]:
        if self._teacher is None:
            self._teacher = original(self.net)
        return _arrays(self._teacher(x))

    def _kept(
        self, name: str, made: Iterator[tuple[dict[str, Tensor], Any]]
    ) -> Iterator[tuple[dict[str, Tensor], Any]]:
        if name in self._cached:
            yield from self._cached[name]
            return
        kept: list[tuple[dict[str, Tensor], Any]] | None = []
        size = 0
        for x, y in made:
            if kept is not None:
                kept.append((x, y))
                size += sum(t.nbytes for t in x.values()) + sum(array.nbytes for array in _listed(y))
                if size > _CACHE_BYTES:
                    kept = None
            yield x, y
        if kept is not None:
            self._cached[name] = kept


@contextmanager
def as_judged(net: SuperNetwork, *, bf16: bool = False, training: bool = False) -> Iterator[None]:
    """While entered, the network evaluates in that precision; `training`: by the statistics of each batch."""
    before = (net.training, net.bf16)
    net.train(training)
    net.bf16 = bf16
    try:
        yield
    finally:
        was, net.bf16 = before
        net.train(was)


def batch_of(net: SuperNetwork, most: int) -> int:
    """How many samples to evaluate at once, at most `most`: fewer where the network's values are many."""
    return max(1, min(most, _LARGEST // max(1, net.space.graph.values_per_sample)))


def original(net: SuperNetwork) -> SuperNetwork:
    """The network as it was before training: frozen, maximal, with the file's weights, in evaluation mode."""
    made = SuperNetwork(FixedSpace(net.space.graph), channels_last=net.channels_last).to(net.device)
    return frozen(made)


def evaluate(
    net: SuperNetwork,
    subnet: Subnet,
    data: DataSet,
    split: str,
    metric: Metric,
    *,
    recalibration_images: int = 2048,
    limit: int | None = None,
    seed: int = 0,
    teacher: Teacher | None = None,
) -> float:
    """The metric of one sub-network, its statistics recalibrated first. For many, keep a `Judge`."""
    judge = Judge(
        net,
        data,
        split,
        metric,
        recalibration_images=recalibration_images,
        limit=limit,
        seed=seed,
        teacher=teacher,
    )
    return judge.quality(subnet)


def _listed(arrays: NDArray[Any] | list[NDArray[Any]] | None) -> Sequence[NDArray[Any]]:
    return [] if arrays is None else arrays if isinstance(arrays, list) else [arrays]


def _arrays(outputs: Sequence[Tensor]) -> NDArray[Any] | list[NDArray[Any]]:
    arrays = [output.detach().cpu().numpy() for output in outputs]
    return arrays[0] if len(arrays) == 1 else arrays
