"""The prepared graph: BatchNorm where training needs it, the most important units first.

A file whose BatchNormalization has been folded into its convolutions can neither be trained well nor
recalibrated, so it is put back (`supernet.recreate_batchnorm`), with statistics over training images as
they are augmented for training. Then the units of each
width group are sorted by importance, by a permutation of the weights that changes nothing either, so that
a width is a prefix.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxnas import analysis, data, graph, space
from onnxnas.errors import ModelError
from onnxnas.pipeline import files
from rewriters.edits import Edit

if TYPE_CHECKING:
    from onnxnas.pipeline.config import Config
    from onnxnas.pipeline.run_dir import RunDirectory

LARGEST = 1 << 26  # activations held at once while statistics are counted
COUNTED = 2048  # training images that the statistics are counted over


def load(run: RunDirectory, shapes: Mapping[str, Sequence[int]]) -> space.SearchSpace:
    """The search space that `prepare` wrote."""
    body = files.read_json(run / "space.json")
    loaded = graph.load(run / "model.onnx", shapes=shapes)
    return space.from_json(dataclasses.replace(loaded, digest=body["model_sha256"]), body)


def with_batchnorm(
    loaded: graph.Graph, nodes: Sequence[str], dataset: data.DataSet, seed: int
) -> graph.Graph:
    """The same function with identity BatchNormalizations behind `nodes`, statistics from the training split."""
    from onnxnas.supernet import recreate_batchnorm

    again = recreate_batchnorm(loaded, _batches(loaded, dataset, seed), nodes)
    return dataclasses.replace(again, digest=loaded.digest, source=loaded.source)


def missing(loaded: graph.Graph, config: Config) -> tuple[str, ...]:
    """The nodes behind which BatchNormalization is to be put back."""
    from onnxnas.supernet import folded

    return tuple(folded(loaded)) if config.batchnorm != "keep" else ()


def made(
    loaded: graph.Graph, nodes: Sequence[str], config: Config, dataset: data.DataSet
) -> space.SearchSpace:
    """The search space over the same function, BatchNormalization behind `nodes`, units in order."""
    if nodes:
        loaded = with_batchnorm(loaded, nodes, dataset, config.seed)
    return ordered(loaded, config.elastic, importance(loaded, config, dataset))


def ordered(loaded: graph.Graph, elastic: Sequence[str], order: space.Order = "l1") -> space.SearchSpace:
    """The search space over the same function with weights permuted, so that every order is 0, 1, 2, ...

    `order` is as `space.build` takes it; where an operator looks at neighbours the weights stay as they are.
    """
    found = analysis.analyse(loaded)
    plain = space.build(found, elastic=elastic, order=order)
    permuted = reload(loaded, space.sorting_edits(found, dict(plain.order)))
    kept = {
        group.id: plain.order[group.id] if group.ordered else np.arange(group.size) for group in plain.groups
    }
    again = space.build(analysis.analyse(permuted), elastic=elastic, order=kept)
    if [d.name for d in again.dimensions] != [d.name for d in plain.dimensions]:
        raise ModelError("sorting the weights changed what can be searched; please report this model")
    return again


def importance(loaded: graph.Graph, config: Config, dataset: data.DataSet) -> space.Order:
    """The order of units that the configuration asks for; 'taylor' needs passes over training samples."""
    if config.importance != "taylor":
        return config.importance
    from onnxnas.supernet import SuperNetwork
    from onnxnas.train import saliency

    found = analysis.analyse(loaded)
    network = SuperNetwork(space.build(found, elastic=config.elastic))
    scores = space.by_data(found, saliency.products(network, dataset, config.train.loss, seed=config.seed))
    return space.by_score(found.groups, scores)


def reload(loaded: graph.Graph, edits: Sequence[Edit]) -> graph.Graph:
    """The graph with `edits` done, under the digest of the model that it came from."""
    shapes = {name: loaded.tensors[name].shape for name in loaded.inputs}
    bound = {name: shape for name, shape in shapes.items() if shape is not None}
    again = graph.load(graph.rewrite(loaded, edits), shapes=bound)
    return dataclasses.replace(again, digest=loaded.digest, source=loaded.source)


def _batches(loaded: graph.Graph, dataset: data.DataSet, seed: int) -> Iterator[dict[str, Any]]:
    """Training images as they are augmented for training, in batches whose activations fit."""
    from onnxnas.data.torch_batches import TorchBatches

    size = max(2, min(128, LARGEST // max(1, loaded.values_per_sample)))
    batches = TorchBatches(dataset.train, dataset)
    for x, _ in batches.epoch(size, seed=seed, drop_last=False, limit=COUNTED):
        yield x
