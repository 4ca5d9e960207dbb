"""From a sub-network of a super-network to a judged quality and to the ONNX file that is shipped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

import rewriters
from onnxnas import data, graph
from onnxnas.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxnas.data import DataSet, Metric
    from onnxnas.graph import Graph
    from onnxnas.measure import Measurer
    from onnxnas.supernet import Statistics, SuperNetwork
    from onnxnas.types import Subnet

Feeds = dict[str, "NDArray[Any]"]
_RUN_BATCH = 64
_RUN_VALUES = 1 << 22  # of the inputs of one run


def cut(network: SuperNetwork, subnet: Subnet, statistics: Statistics | None) -> rewriters.Parts:
    """The sub-network as ONNX with the network's weights, BatchNormalization folded. Raises ModelError."""
    return fold(graph.rewritten(network.space.graph, network.export_edits(subnet, statistics)))


def fold(model: rewriters.Parts) -> rewriters.Parts:
    """The same function with every BatchNormalization folded that can be. Raises ModelError."""
    done = rewriters.fold_all(model)
    if isinstance(done, rewriters.Refusal):
        raise ModelError(f"BatchNormalization cannot be folded: {done.reason}")
    return done.parts


def feeds(loaded: Graph, dataset: DataSet, batch: int) -> Feeds:
    """The inputs of timed inferences: the first `batch` validation samples, repeated when there are fewer."""
    x, _ = next(data.batches(dataset.val, dataset, min(batch, dataset.val.n)))
    return {name: np.resize(x[name], (batch, *x[name].shape[1:])) for name in loaded.inputs}


def quality(
    measurer: Measurer,
    model: bytes,
    baseline: bytes,
    dataset: DataSet,
    split: str,
    metric: Metric,
    limit: int | None,
) -> float:
    """The metric of an ONNX file in the runtime; without labels, against the outputs of `baseline`."""
    meter = metric.start()
    references = None
    if dataset.split(split).y is None:
        references = list(outputs(measurer, baseline, dataset, split, limit))
    for index, (found, y) in enumerate(_answers(measurer, model, dataset, split, limit)):
        if references is not None:
            meter.update(_one(found), _one(references[index]))
        elif y is not None:
            meter.update(_one(found), y)
    return float(meter.compute())


def outputs(
    measurer: Measurer, model: bytes, dataset: DataSet, split: str, limit: int | None
) -> Iterator[list[NDArray[Any]]]:
    """The outputs of an ONNX file, batch by batch."""
    return (found for found, _ in _answers(measurer, model, dataset, split, limit))


def _answers(
    measurer: Measurer, model: bytes, dataset: DataSet, split: str, limit: int | None
) -> Iterator[tuple[list[NDArray[Any]], NDArray[Any] | None]]:
    chosen = dataset.split(split)
    values = sum(array[0].size for array in chosen.x.values())
    for x, y in data.batches(chosen, dataset, max(1, min(_RUN_BATCH, _RUN_VALUES // values)), limit=limit):
        yield measurer.run(model, x), y


def _one(arrays: list[NDArray[Any]]) -> NDArray[Any] | list[NDArray[Any]]:
    return arrays[0] if len(arrays) == 1 else arrays


def example(
    measurer: Measurer, model: bytes, inputs: Mapping[str, NDArray[Any]], names: tuple[str, ...]
) -> Feeds:
    """Outputs of a model by name, for a bundle."""
    return dict(zip(names, measurer.run(model, inputs), strict=True))
