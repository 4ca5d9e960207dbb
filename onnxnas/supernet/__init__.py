"""The weight-sharing super-network: the ONNX graph itself, executed in torch."""

from onnxnas.supernet.batchnorm import BatchNormMode, Statistics
from onnxnas.supernet.fixed import FixedSpace, PlannedGraph
from onnxnas.supernet.network import SuperNetwork
from onnxnas.supernet.recreate import folded, recreate_batchnorm

__all__ = [
    "BatchNormMode",
    "FixedSpace",
    "PlannedGraph",
    "Statistics",
    "SuperNetwork",
    "folded",
    "recreate_batchnorm",
]
