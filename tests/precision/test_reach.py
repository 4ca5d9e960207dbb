"""How large weights may be: told by what a runtime computes, and by what the processor says of itself."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

import rewriters
from onnxnas import graph, measure
from onnxnas.precision import Quantisable, Range, largest_weight
from tests.precision.test_quantise import INT8, plainly, run

Array = NDArray[Any]
FLAGS = Path("/proc/cpuinfo")


def in_16_bits(content: bytes, feeds: Mapping[str, Array]) -> Sequence[Array]:
    """A convolution by points as vpmaddubsw adds: two products of 8 bits in 16, cut off; pairs in 32."""
    values = {
        t.name: numpy_helper.to_array(t) for t in onnx.load_model_from_string(content).graph.initializer
    }
    (weight,) = (value for value in values.values() if value.dtype == np.int8 and value.ndim == 4)
    (steps,) = (values[name] for name in values if name.startswith("w") and values[name].dtype == np.float32)
    x = np.rint(feeds["x"] * 255).astype(np.int64)  # its range is from 0 to 1
    products = weight[None, :, :, 0, 0, None, None].astype(np.int64) * x[:, None]
    pairs = products.reshape(*products.shape[:2], -1, 2, *products.shape[3:]).sum(3)
    sums = np.clip(pairs, -(2**15), 2**15 - 1).sum(2)
    return [np.asarray(np.maximum(sums * steps[:, None, None] / 255, 0), np.float32)]


def rounded(weight: Array, most: int) -> bytes:
    parts = rewriters.Parts.of(graph.pointwise(weight))
    found = Quantisable(parts, INT8, most)
    total = float(np.abs(weight).sum(1).max())
    return found.quantised({n: Range(0.0, 1.0 if n == "x" else total) for n in found.tensors}).to_bytes()


def test_what_a_runtime_computes_decides() -> None:
    assert largest_weight(plainly) == 127
    assert largest_weight(in_16_bits) == 64


@pytest.mark.parametrize("size", [64, 127])
def test_sums_of_two_products_fit_from_64_on(size: int) -> None:
    """Against the same in floats; the emulation, and that 127 would not fit."""
    weight = np.random.default_rng(0).choice([-1.0, 1.0], (8, 16)).astype(np.float32)
    weight[0] = 1.0
    x = {"x": np.ones((1, 16, graph.POINTS, graph.POINTS), np.float32)}
    content = rounded(weight, size)
    apart = np.abs(in_16_bits(content, x)[0] - plainly(content, x)[0]).max()
    assert (apart < 0.1) == (size == 64)


@pytest.mark.skipif(
    platform.machine() != "x86_64" or not FLAGS.is_file(), reason="flags of x86-64 under Linux"
)
def test_as_the_processor_says() -> None:
    flags = next(line for line in FLAGS.read_text().splitlines() if line.startswith("flags")).split()
    vnni = {"avx512_vnni", "avx_vnni", "amx_int8"}.intersection(flags)
    assert largest_weight(run) == (127 if vnni else 64)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_largest_sums_are_right(runtime: str) -> None:
    """All weights and inputs as large as they may be, in both runtimes, whatever this processor has."""
    weight = np.ones((48, 64), np.float32)
    x = {"x": np.ones((1, 64, graph.POINTS, graph.POINTS), np.float32)}
    baseline = graph.pointwise(weight).SerializeToString()
    with measure.Measurer(measure.Target(runtime=runtime), baseline, x, noise_floor=0.0) as measuring:
        most = largest_weight(measuring.run)
        (sums,) = measuring.run(rounded(weight, most), x)
    np.testing.assert_allclose(sums, 64.0, rtol=0.02)
