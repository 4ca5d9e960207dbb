"""Operators of the domain ai.onnx.ml around a scikit-learn network: scaled features, class labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxnas.ops.registry import register
from onnxnas.ops.spec import BatchNorm, Flow, OpSpec, TorchFunction, opaque
from onnxnas.types import Node

if TYPE_CHECKING:
    from torch import Tensor

Constants = Mapping[int, NDArray[Any]]
DOMAIN = "ai.onnx.ml"


def _scaler_flow(flow: Flow, node: Node) -> None:
    """Its numbers are attributes, one for each feature: features stay, other axes pass."""
    x = node.inputs[0]
    shape = flow.shape(x)
    if shape is None:
        flow.freeze_all(node, "its shape is unknown")
        return
    layout = flow.static(flow.layout(x), [len(shape) - 1], node, "scaled by numbers of its own")
    flow.set(node.outputs[0], layout)


def _scaler(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
    import torch

    offset = torch.tensor(node.attributes.get("offset", (0.0,)), dtype=torch.float32)
    scale = torch.tensor(node.attributes.get("scale", (1.0,)), dtype=torch.float32)

    def run(inputs: Sequence[Any]) -> Tensor:
        x = inputs[0].to(torch.float32)
        return (x - offset.to(x.device)) * scale.to(x.device)

    return run


def _feature_extractor(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
    """Entries of the last axis; those of a vector come out as a row."""
    import torch

    fixed = {i: torch.tensor(np.array(v)) for i, v in constants.items()}

    def run(inputs: Sequence[Any]) -> Tensor:
        x, index = (fixed[i] if given is None else given for i, given in enumerate(inputs))
        y = x[..., index.reshape(-1).to(torch.int64)]
        return y.unsqueeze(0) if x.ndim == 1 else y

    return run


register(
    OpSpec("Scaler", _scaler_flow, _scaler, domain=DOMAIN),
    OpSpec("ArrayFeatureExtractor", opaque, _feature_extractor, domain=DOMAIN),
)
