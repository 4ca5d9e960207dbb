"""Loading, questioning, rewriting and saving ONNX models; the only package that sees the protobuf."""

from onnxnas.graph.convert import view
from onnxnas.graph.inputs import example_inputs, other_shapes
from onnxnas.graph.limits import Limits
from onnxnas.graph.load import load
from onnxnas.graph.model import Graph
from onnxnas.graph.pointwise import POINTS, pointwise
from onnxnas.graph.save import parse, rewrite, rewritten, save, too_large
from onnxnas.graph.single import SingleNode, single_node

__all__ = [
    "POINTS",
    "Graph",
    "Limits",
    "SingleNode",
    "example_inputs",
    "load",
    "other_shapes",
    "parse",
    "pointwise",
    "rewrite",
    "rewritten",
    "save",
    "single_node",
    "too_large",
    "view",
]
