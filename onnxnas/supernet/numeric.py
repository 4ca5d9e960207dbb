"""The super-network for those who speak numpy."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from onnxnas.graph import Graph
from onnxnas.supernet.fixed import FixedSpace
from onnxnas.supernet.network import SuperNetwork
from onnxnas.types import Subnet


@torch.no_grad()
def run(network: SuperNetwork, subnet: Subnet, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """Outputs of `subnet`, in graph order, in evaluation mode with the statistics of the file; it stays active."""
    network.eval()
    network.activate(subnet)
    given = {name: torch.from_numpy(np.array(value)).to(network.device) for name, value in feeds.items()}
    return [output.cpu().numpy() for output in network(given)]


@torch.no_grad()
def moments(
    graph: Graph, tensors: Sequence[str], batches: Iterable[Mapping[str, NDArray[Any]]]
) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Mean and variance of each channel (axis 1) of `tensors`, activations of `graph`, over all batches.

    Computed in the original network, in evaluation mode. Arrays have as many values as the tensor channels.
    """
    watched = dataclasses.replace(graph, outputs=(*graph.outputs, *tensors))
    network = SuperNetwork(FixedSpace(watched)).eval()
    sums: dict[str, tuple[int, torch.Tensor, torch.Tensor]] = {}
    for batch in batches:
        outputs = network({name: torch.from_numpy(np.array(value)) for name, value in batch.items()})
        for name, value in zip(tensors, outputs[len(graph.outputs) :], strict=True):
            axes = [0, *range(2, value.dim())]
            var, mean = torch.var_mean(value.double(), dim=axes, correction=0)
            n = value.numel() // value.shape[1]
            first, second = mean * n, (var + mean * mean) * n
            if name in sums:
                count, a, b = sums[name]
                n, first, second = n + count, first + a, second + b
            sums[name] = (n, first, second)
    found = {}
    for name, (n, first, second) in sums.items():
        mean = first / n
        var = (second / n - mean * mean).clamp_min(0.0)
        found[name] = (mean.float().numpy(), var.float().numpy())
    return found
