"""How large the integers of weights may be where a network will run.

Processors without instructions for 8-bit products into 32 bits (VNNI, AMX) multiply pairs of uint8 and int8 and add the
two products in 16 bits, cutting off what does not fit: 255 * 127 * 2 does not. With 64 for 127 it does (ONNX Runtime
calls this reduce_range, NNCF overflow fix), at the price of one bit of the weights. Whether a runtime computes so is
seen by what it computes: libraries have other kernels for other processors.
"""

from __future__ import annotations

import numpy as np

import rewriters
from onnxnas import graph
from onnxnas.precision.plan import EVERY, INT8
from onnxnas.precision.quantise import MOST, Quantisable
from onnxnas.precision.ranges import Range, Run

HALF = 64  # 255 * 64 * 2 < 2**15
_CHANNELS = 32


def largest_weight(run: Run) -> int:
    """127, or 64 where a sum of the largest products comes out smaller than it is."""
    parts = rewriters.Parts.of(graph.pointwise(np.ones((_CHANNELS, _CHANNELS), np.float32)))
    found = Quantisable(parts, {EVERY: INT8}, MOST)
    ranges = {name: Range(0.0, 1.0 if name == "x" else 2.0 * _CHANNELS) for name in found.tensors}
    ones = np.ones((1, _CHANNELS, graph.POINTS, graph.POINTS), np.float32)
    (sums,) = run(found.quantised(ranges).to_bytes(), {"x": ones})
    return MOST if np.allclose(sums, _CHANNELS, rtol=0.02) else HALF
