"""The prepared graph: BatchNorm where training needs it, the most important units first.

A file whose BatchNormalization has been folded into its convolutions can neither be trained well nor
recalibrated. So behind a convolution y = conv(x) one is put back that changes nothing,

    (y - mean) / sqrt(var + eps) * sqrt(var + eps) + mean = y

with mean and var of y over training images as they are augmented for training. Then the units of each
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
from rewriters.edits import Edit, InsertBatchNorm

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxnas.pipeline.run_dir import RunDirectory
    from onnxnas.types import Node

EPSILON = 1e-5
_NORMS = frozenset(
    {
        "BatchNormalization",
        "LayerNormalization",
        "InstanceNormalization",
        "GroupNormalization",
        "SimplifiedLayerNormalization",
        "RMSNormalization",
    }
)
_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_LARGEST = 1 << 26  # activations held at once while moments are counted


def load(run: RunDirectory, shapes: Mapping[str, Sequence[int]]) -> space.SearchSpace:
    """The search space that `prepare` wrote."""
    body = files.read_json(run / "space.json")
    loaded = graph.load(run / "model.onnx", shapes=shapes)
    return space.from_json(dataclasses.replace(loaded, digest=body["model_sha256"]), body)


def folded(loaded: graph.Graph) -> list[Node]:
    """The convolutions behind which a BatchNormalization is missing; none if the network has norms of any kind.

    Convolutions of a single position (squeeze-and-excite) have no statistics to speak of, and behind the
    last ones, whose values are the model's answer, there never was one.
    """
    if any(node.op_type in _NORMS for node in loaded.nodes):
        return []
    last = _near_output(loaded)
    found = []
    for node in loaded.nodes:
        if node.op_type != "Conv" or node.name in last or node.inputs[1] not in loaded.initializers:
            continue
        shape = loaded.tensors[node.outputs[0]].shape
        if shape is not None and len(shape) > 2 and int(np.prod(shape[2:])) > 1:
            found.append(node)
    return found


def with_batchnorm(
    loaded: graph.Graph, nodes: Sequence[Node], dataset: data.DataSet, seed: int
) -> graph.Graph:
    """The same function with identity BatchNormalizations behind `nodes`, statistics from the training split."""
    from onnxnas.supernet.numeric import moments

    tensors = [node.outputs[0] for node in nodes]
    found = moments(loaded, tensors, _batches(loaded, dataset, seed))
    edits: list[Edit] = []
    for node in nodes:
        mean, var = found[node.outputs[0]]
        edits.append(InsertBatchNorm(node.name, np.sqrt(var + EPSILON), mean, mean, var, EPSILON))
    return reload(loaded, edits)


def ordered(loaded: graph.Graph, elastic: Sequence[str]) -> space.SearchSpace:
    """The search space over the same function with weights permuted, so that every order is 0, 1, 2, ...

    Units are sorted by L1 importance; where an operator looks at neighbours the weights stay as they are.
    """
    found = analysis.analyse(loaded)
    plain = space.build(found, elastic=elastic, order="l1")
    permuted = reload(loaded, space.sorting_edits(found, dict(plain.order)))
    order = {
        group.id: plain.order[group.id] if group.ordered else np.arange(group.size) for group in plain.groups
    }
    again = space.build(analysis.analyse(permuted), elastic=elastic, order=order)
    if [d.name for d in again.dimensions] != [d.name for d in plain.dimensions]:
        raise ModelError("sorting the weights changed what can be searched; please report this model")
    return again


def reload(loaded: graph.Graph, edits: Sequence[Edit]) -> graph.Graph:
    """The graph with `edits` done, under the digest of the model that it came from."""
    shapes = {name: loaded.tensors[name].shape for name in loaded.inputs}
    bound = {name: shape for name, shape in shapes.items() if shape is not None}
    again = graph.load(graph.rewrite(loaded, edits), shapes=bound)
    return dataclasses.replace(again, digest=loaded.digest, source=loaded.source)


def _batches(loaded: graph.Graph, dataset: data.DataSet, seed: int) -> Iterator[dict[str, NDArray[Any]]]:
    values = [info.shape for info in loaded.tensors.values() if info.shape is not None]
    per_sample = max(1, sum(int(np.prod(shape)) for shape in values))
    size = max(2, min(128, _LARGEST // per_sample))
    rng = np.random.default_rng(seed)
    for x, _ in data.batches(dataset.train, dataset, size, rng=rng, augment=True, limit=2048):
        yield x


def _near_output(loaded: graph.Graph) -> frozenset[str]:
    """Names of the weighted nodes whose values reach an output without passing another one."""
    near: set[str] = set()
    waiting, seen = list(loaded.outputs), set(loaded.outputs)
    while waiting:
        node = loaded.producer(waiting.pop())
        if node is None:
            continue
        if node.op_type in _WEIGHTED:
            near.add(node.name)
            continue
        for name in node.inputs:
            if name and name not in seen:
                seen.add(name)
                waiting.append(name)
    return frozenset(near)
