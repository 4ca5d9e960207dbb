"""Networks in numbers of 8 bits: where they are rounded, by what ranges, and the graph that says so."""

from onnxnas.precision.biases import corrected
from onnxnas.precision.plan import EVERY, FLOATS, INT8
from onnxnas.precision.quantise import MOST as LARGEST
from onnxnas.precision.quantise import Quantisable
from onnxnas.precision.ranges import Range, Run, seen
from onnxnas.precision.reach import largest_weight
from rewriters.quantise import PER_AXIS as LEAST_OPSET

__all__ = [
    "EVERY",
    "FLOATS",
    "INT8",
    "LARGEST",
    "LEAST_OPSET",
    "Quantisable",
    "Range",
    "Run",
    "corrected",
    "largest_weight",
    "seen",
]
