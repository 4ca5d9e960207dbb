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

    from onnxnas.data import DataSet, Metric, Split
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


def run_batch(split: Split) -> int:
    """How many samples of a split the runtime is given at once: as many as its activations have room for."""
    return max(1, min(_RUN_BATCH, _RUN_VALUES // values_of(split)))


def values_of(split: Split) -> int:
    """Of the inputs of one sample."""
    return sum(array[0].size for array in split.x.values())


class InRuntime:
    """Judges ONNX files in the runtime, by `limit` samples of a split; without labels against those of `baseline`."""

    def __init__(
        self,
        measurer: Measurer,
        baseline: bytes,
        dataset: DataSet,
        split: str,
        metric: Metric,
        limit: int | None = None,
    ) -> None:
        self._measurer, self._baseline, self._metric = measurer, baseline, metric
        self._data, self._split, self._limit = dataset, dataset.split(split), limit
        self._references: list[list[NDArray[Any]]] = []

    def quality(self, model: bytes) -> float:
        """The metric of one file. Raises CandidateError when it does not run."""
        meter = self._metric.start()
        if self._split.y is None and not self._references:
            self._references = [found for found, _ in self._answers(self._baseline)]
        for index, (found, y) in enumerate(self._answers(model)):
            meter.update(_one(found), _one(self._references[index]) if y is None else y)
        return float(meter.compute())

    def _answers(self, model: bytes) -> Iterator[tuple[list[NDArray[Any]], NDArray[Any] | None]]:
        size = run_batch(self._split)
        for x, y in data.batches(self._split, self._data, size, limit=self._limit):
            yield self._measurer.run(model, x), y


def _one(arrays: list[NDArray[Any]]) -> NDArray[Any] | list[NDArray[Any]]:
    return arrays[0] if len(arrays) == 1 else arrays


def example(
    measurer: Measurer, model: bytes, inputs: Mapping[str, NDArray[Any]], names: tuple[str, ...]
) -> Feeds:
    """Outputs of a model by name, for a bundle."""
    return dict(zip(names, measurer.run(model, inputs), strict=True))
