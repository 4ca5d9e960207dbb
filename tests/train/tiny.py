"""A tiny problem: 8 x 8 images of four classes that differ in colour, and a network for it."""

from __future__ import annotations

import functools

import numpy as np

from onnxnas import analysis, graph, space
from onnxnas.data import DataSet, Normalise, Split
from onnxnas.space import SearchSpace
from onnxnas.testing import graphs
from onnxnas.train import TrainSettings


def split(n: int, seed: int, labels: bool) -> Split:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, n)
    colours = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]], np.float32)
    x = rng.normal(0, 1.0, (n, 3, 8, 8)) + 1.5 * colours[y][:, :, None, None]
    return Split({"x": x.astype(np.float32)}, y if labels else None, n)


def data(n: int = 96, *, labels: bool = True, augment: tuple[str, ...] = ("crop", "flip")) -> DataSet:
    return DataSet(
        train=split(n, 1, labels),
        val=split(64, 2, labels),
        test=None,
        task="classification" if labels else "distillation",
        metric="top1" if labels else "fidelity",
        loss="cross_entropy" if labels else "distillation",
        augment=augment,
        normalise=Normalise(layout="nchw", model_layout="nchw"),
        dtypes={"x": np.dtype(np.float32)},
        images=frozenset({"x"}),
        classes=None,
        notes=(),
        digest=f"tiny {n} {labels}",
    )


@functools.cache
def places(name: str = "resnet") -> SearchSpace:
    model = graphs.NETWORKS[name]()
    loaded = graph.load(model)
    return space.build(analysis.analyse(loaded), elastic=("depth", "width", "kernel"))


def settings(**changes: object) -> TrainSettings:
    base: dict[str, object] = {
        "epochs": 3,
        "batch_size": 32,
        "lr": 0.05,
        "distillation": 0.0,
        "bf16": False,
        "eval_every": 0,
        "eval_random": 1,
        "eval_images": 64,
        "recalibration_images": 64,
        "checkpoint_seconds": 0,
    }
    return TrainSettings.model_validate({**base, **changes})
