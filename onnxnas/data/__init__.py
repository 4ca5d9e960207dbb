"""Data sets: read, checked against a model's inputs, cut into batches, and the metrics over them.

`load` reads what the user names; `batches` gives numpy batches; `torch_batches` (imported on its own,
because it imports torch) the fast training batches; `metrics` says how good outputs are.
"""

from onnxnas.data.batches import batches, prepare
from onnxnas.data.load import load, metric_of
from onnxnas.data.metrics import Meter, Metric, get_metric, ranks_classes
from onnxnas.data.types import DataSet, Normalise, Split

__all__ = [
    "DataSet",
    "Meter",
    "Metric",
    "Normalise",
    "Split",
    "batches",
    "get_metric",
    "load",
    "metric_of",
    "prepare",
    "ranks_classes",
]
