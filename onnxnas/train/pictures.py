"""What settings about pictures ask of the data and the network."""

from __future__ import annotations

from onnxnas.data import DataSet
from onnxnas.errors import ConfigError
from onnxnas.graph import Graph
from onnxnas.train.losses import Criterion
from onnxnas.train.settings import TrainSettings


def check_pictures(settings: TrainSettings, data: DataSet, graph: Graph, criterion: Criterion) -> None:
    """Raises ConfigError for pictures that are to be mixed or mirrored where they cannot be."""
    pictures = sorted(name for name in data.images if data.train.x[name].ndim == 4)
    if settings.mixed > 0 and not (criterion.needs_teacher and pictures):
        raise ConfigError(
            f"mixed is {settings.mixed:g}: mixed pictures need pictures, and a teacher that says what they are; "
            f"got inputs {sorted(data.train.x)} and distillation {criterion.weight:g}. Set mixed to 0, or "
            "distillation above it"
        )
    if not settings.mirrored:
        return
    if not (pictures and settings.augment and "flip" in data.augment):
        raise ConfigError(
            "mirrored is true: expected pictures that are flipped (`flip` in the data's `augment`); got inputs "
            f"{sorted(data.train.x)}, augment {list(data.augment) if settings.augment else 'false'}. "
            "Set mirrored to false"
        )
    shapes = {name: graph.tensors[name].shape for name in graph.outputs}
    others = [f"{name} {shape}" for name, shape in shapes.items() if shape is None or len(shape) != 2]
    if criterion.needs_teacher and others:
        raise ConfigError(
            f"mirrored is true: expected outputs [n, k], of which the mean for both images is meant; got {others[0]}. "
            "Set mirrored to false"
        )
