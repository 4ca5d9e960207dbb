"""BatchNormalization put back where an exporter folded it away.

A network whose BatchNormalizations were folded into its convolutions cannot be trained well with shared
weights: nothing adapts to a sub-network's own statistics. Behind each such convolution a BatchNormalization
is inserted with the mean m and variance v that the convolution's output has on training images,

    scale = sqrt(v + epsilon)    bias = m    running mean = m    running variance = v

so that in evaluation it is the identity, and in training it normalises like the one that was there. The
rewriter folds it back in the end.

What was folded in also changed the size of the filters, which in front of a normalisation decides nothing but the
learning rate: a filter of half the norm turns four times as fast (van Laarhoven, L2 regularization versus batch and
weight normalization, 2017). The filters of a CIFAR ResNet-20 have norms of 1.2 to 2.2 before folding and of 0.6 to 4.4
after. So each gets the norm of a fresh one, the square root of 2 (He et al. 2015), and the statistics follow.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxnas.graph import Graph, load, rewrite
from onnxnas.supernet.fixed import FixedSpace
from onnxnas.supernet.network import Batch, SuperNetwork
from onnxnas.types import Node, Subnet
from rewriters.edits import InsertBatchNorm, SetInitializer

EPSILON = 1e-5
_NORMS = frozenset(
    {
        "BatchNormalization",
        "GroupNormalization",
        "InstanceNormalization",
        "LayerNormalization",
        "LRN",
        "RMSNormalization",
        "SimplifiedLayerNormalization",
    }
)
_LINEAR = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def folded(graph: Graph) -> tuple[str, ...]:
    """Names of the convolutions that seem to have had a BatchNormalization.

    None when the network has any normalisation left, or when fewer than half of its convolutions have a bias
    (a folded one always has). Otherwise those with a bias, with an output larger than 1 x 1 (the layers of a
    squeeze-and-excite branch have none) and with another layer behind them (the last has none).
    A network that never had any, such as VGG, looks the same; for it too the function stays as it is.
    """
    convolutions = [n for n in graph.nodes if n.op_type in ("Conv", "ConvTranspose")]
    biased = [n for n in convolutions if len(n.inputs) > 2 and n.inputs[2] in graph.initializers]
    if any(n.op_type in _NORMS for n in graph.nodes) or 2 * len(biased) < len(convolutions):
        return ()
    inner = _with_layer_behind(graph)
    return tuple(
        n.name
        for n in biased
        if n.name in inner and n.inputs[1] in graph.initializers and _has_positions(graph, n)
    )


def recreate_batchnorm(graph: Graph, batches: Iterable[Batch], nodes: Iterable[str] | None = None) -> Graph:
    """The same network with a BatchNormalization behind each of `nodes` (default: `folded`).

    `batches` are training images, augmented as in training; a few thousand are enough. Raises ModelError
    when the network cannot be run in torch or a node cannot have one.
    """
    chosen = tuple(folded(graph) if nodes is None else nodes)
    if not chosen:
        return graph
    plain = [_identity(graph, graph.node(name)) for name in chosen]
    prepared = _reload(graph, rewrite(graph, plain))
    old = {n.name for n in graph.nodes}
    new = [n for n in prepared.nodes if n.op_type == "BatchNormalization" and n.name not in old]
    net = SuperNetwork(FixedSpace(prepared))
    found = net.observe(batches, Subnet())
    edits = []
    for node in new:
        scale, bias, mean, var = node.inputs[1:5]
        m, v = found.mean[mean], found.var[mean]
        times, filters = _fresh_norms(prepared, prepared.producer(node.inputs[0]), len(m))
        root = np.sqrt(times**2 * v + np.float32(EPSILON))
        values = {scale: root / times, bias: m, mean: times * m, var: times**2 * v, **filters}
        edits += [SetInitializer(name, value.astype(np.float32)) for name, value in values.items()]
    return _reload(graph, rewrite(prepared, edits))


def _fresh_norms(
    graph: Graph, layer: Node | None, channels: int
) -> tuple[NDArray[np.floating[Any]], dict[str, NDArray[np.floating[Any]]]]:
    """(factor of each output channel, weights and bias of the layer times it); factors of 1 where it must stay."""
    same = np.ones(channels, np.float32)
    if layer is None or layer.op_type != "Conv":
        return same, {}
    names = [name for name in layer.inputs[1:3] if name]
    if any(name not in graph.initializers or len(graph.consumers(name)) > 1 for name in names):
        return same, {}
    weight = graph.initializers[names[0]]
    norms = np.linalg.norm(weight.reshape(channels, -1), axis=1)
    dead = norms < 1e-3 * max(float(norms.max()), 1e-30)
    times = np.where(dead, 1.0, np.sqrt(2.0) / np.where(dead, 1.0, norms)).astype(np.float32)
    values = {names[0]: weight * times.reshape(-1, *(1,) * (weight.ndim - 1))}
    if len(names) > 1:
        values[names[1]] = graph.initializers[names[1]] * times
    return times, values


def _identity(graph: Graph, node: Node) -> InsertBatchNorm:
    weight = graph.initializers[node.inputs[1]]
    channels = weight.shape[0]
    if node.op_type == "ConvTranspose":
        channels = weight.shape[1] * int(node.attributes.get("group", 1))
    ramp = np.linspace(0.0, 1.0, channels, dtype=np.float32)  # all different: equal arrays could be merged
    one = np.ones(channels, np.float32)
    return InsertBatchNorm(node.name, np.sqrt(one + EPSILON), ramp, ramp, one, EPSILON)


def _reload(graph: Graph, model: object) -> Graph:
    shapes = {name: graph.tensors[name].shape or () for name in graph.inputs}
    return load(model, shapes=shapes)  # type: ignore[arg-type]


def _with_layer_behind(graph: Graph) -> frozenset[str]:
    reached: set[str] = set()  # tensors from which another layer is reached
    inner: set[str] = set()
    for node in reversed(graph.nodes):
        behind = any(name in reached for name in node.outputs)
        if behind:
            inner.add(node.name)
        if behind or node.op_type in _LINEAR:
            reached.update(node.inputs)
    return frozenset(inner)


def _has_positions(graph: Graph, node: Node) -> bool:
    shape = graph.tensors[node.outputs[0]].shape
    return shape is None or int(np.prod(shape[2:])) > 1
