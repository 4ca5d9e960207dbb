"""A glance at a sub-network: how far its outputs are from the original's, on a few images.

One pass over a few validation images, every BatchNormalization by the statistics of that batch, instead of counting
statistics and judging a thousand images: a tenth of the time and less. It is no quality, but says which of two
sub-networks has the higher one (figures: docs/decisions/0016-a-glance-at-quality.md).
"""

from __future__ import annotations

import torch
from torch import Tensor

from onnxnas.data import DataSet
from onnxnas.data.torch_batches import TorchBatches
from onnxnas.supernet import SuperNetwork
from onnxnas.train.evaluate import as_judged, batch_of, original
from onnxnas.train.losses import criterion
from onnxnas.train.settings import TrainSettings
from onnxnas.types import Subnet


class Glance:
    """Glances at many sub-networks of one super-network, at the same first `images` of the validation split.

    Raises ConfigError for an unknown loss in `settings`, whose temperature scores are compared at.
    """

    def __init__(self, net: SuperNetwork, data: DataSet, settings: TrainSettings, images: int) -> None:
        self._net = net
        self._loss = criterion(net.space.graph, data, settings).distil
        split = TorchBatches(data.split("val"), data, device=net.device, channels_last=net.channels_last)
        size = batch_of(net, min(images, split.n))
        batches = split.epoch(size, shuffle=False, augment=False, drop_last=False, limit=images)
        self._batches = [x for x, _ in batches]
        self._wanted: list[tuple[Tensor, ...]] | None = None

    @torch.no_grad()
    def loss(self, subnet: Subnet) -> float:
        """The distance to the original's outputs (0: none), as in distillation."""
        if self._wanted is None:
            teacher = original(self._net)
            self._wanted = [tuple(teacher(x)) for x in self._batches]
        with as_judged(self._net, training=True):
            self._net.activate(subnet)
            pairs = zip(self._batches, self._wanted, strict=True)
            each = [float(self._loss(self._net(x), wanted)) for x, wanted in pairs]
        return sum(each) / len(each)
