"""Gradients of convolutions of a few channels, in the layout that training uses, by the kernels of AVX2."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# In a process of its own, since where oneDNN's strided kernel runs it writes past its memory, which ends the process.
CHILD = """
import sys
import numpy as np
import torch
from onnxnas.ops.registry import resolve
from onnxnas.supernet.batchnorm import BatchNormMode
from onnxnas.types import Node

channels, stride = int(sys.argv[1]), (int(sys.argv[2]), int(sys.argv[3]))
rng = np.random.default_rng(0)
xs = rng.standard_normal((32, channels, 8, 8))
ws = rng.standard_normal((16, channels, 1, 1))
node = Node("n", "Conv", "", 13, ("x", "w"), ("y",), {"kernel_shape": (1, 1), "strides": stride})
run = resolve(node).torch(node, {}, BatchNormMode({}))
seen = xs[:, :, :: stride[0], :: stride[1]]
gs = rng.standard_normal((32, 16, *seen.shape[2:]))
for _ in range(20):
    x, w = (torch.tensor(a, dtype=torch.float32) for a in (xs, ws))
    x, w = (t.contiguous(memory_format=torch.channels_last).requires_grad_() for t in (x, w))
    y = run([x, w])
    y.backward(torch.tensor(gs, dtype=torch.float32).contiguous(memory_format=torch.channels_last))
    expected = np.zeros_like(xs)
    expected[:, :, :: stride[0], :: stride[1]] = np.einsum("nohw,oi->nihw", gs, ws[:, :, 0, 0])
    np.testing.assert_allclose(y.detach(), np.einsum("nihw,oi->nohw", seen, ws[:, :, 0, 0]), rtol=0, atol=1e-3)
    np.testing.assert_allclose(w.grad[:, :, 0, 0], np.einsum("nohw,nihw->oi", gs, seen), rtol=0, atol=1e-3)
    np.testing.assert_allclose(x.grad, expected, rtol=0, atol=1e-3)
"""


@pytest.mark.parametrize(
    ("channels", "stride"), [(2, (2, 2)), (6, (2, 2)), (6, (1, 3)), (15, (2, 2)), (16, (2, 2))]
)
def test_points_that_stride(root: Path, channels: int, stride: tuple[int, int]) -> None:
    """Against sums over the points that are seen."""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "1"}
    told = subprocess.run(
        [sys.executable, "-c", CHILD, str(channels), *map(str, stride)],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert told.returncode == 0, told.stderr[-2000:]
