"""BatchNormalization statistics against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from onnxnas.supernet import BatchNormMode, Statistics

SIZES = (7, 3, 5)


def batches(shape: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [rng.normal(2.0, 3.0, (n, *shape)).astype(np.float32) for n in SIZES]


@pytest.mark.parametrize("shape", [(4,), (4, 6), (4, 5, 3)])
def test_calibration_counts_exactly(shape: tuple[int, ...]) -> None:
    mode = BatchNormMode({"bn": "mean"})
    mode.state = "calibrate"
    mode.start()
    one, zero = torch.ones(4), torch.zeros(4)
    data = batches(shape)
    for batch in data:
        y = mode.batch_norm("bn", torch.from_numpy(batch), one, zero, zero, one, 0.0)
        axes = tuple(i for i in range(batch.ndim) if i != 1)
        wanted = (batch - batch.mean(axes, keepdims=True)) / batch.std(axes, keepdims=True)
        np.testing.assert_allclose(y.numpy(), wanted, atol=1e-4)
    found = mode.counted(sum(SIZES))
    together = np.concatenate(data).astype(np.float64)
    axes = tuple(i for i in range(together.ndim) if i != 1)
    np.testing.assert_allclose(found.mean["mean"], together.mean(axes), rtol=1e-5)
    np.testing.assert_allclose(found.var["mean"], together.var(axes), rtol=1e-5)
    assert found.count == 15


def test_nodes_that_share_statistics_are_pooled() -> None:
    mode = BatchNormMode({"a": "mean", "b": "mean"})
    mode.state = "calibrate"
    one, zero = torch.ones(2), torch.zeros(2)
    x = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    mode.batch_norm("a", torch.from_numpy(x), one, zero, zero, one, 1e-5)
    mode.batch_norm("b", torch.from_numpy(x + 4), one, zero, zero, one, 1e-5)
    both = np.concatenate([x, x + 4])
    found = mode.counted(6)
    np.testing.assert_allclose(found.mean["mean"], both.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.var["mean"], both.var(0), rtol=1e-5)


def test_evaluation_uses_what_is_given() -> None:
    mode = BatchNormMode({"bn": "mean"})
    mode.state = "eval"
    x, one, zero = torch.full((2, 3), 5.0), torch.ones(3), torch.zeros(3)
    assert torch.allclose(mode.batch_norm("bn", x, one, zero, one, 4 * one, 0.0), torch.full((2, 3), 2.0))
    mode.use(Statistics({"mean": np.full(3, 2, np.float32)}, {"mean": np.full(3, 9, np.float32)}))
    assert torch.allclose(mode.batch_norm("bn", x, one, zero, one, 4 * one, 0.0), torch.ones(2, 3))
    mode.use(None)
    assert torch.allclose(mode.batch_norm("bn", x, one, zero, one, 4 * one, 0.0), torch.full((2, 3), 2.0))


def test_training_changes_no_statistics() -> None:
    mode = BatchNormMode({"bn": "mean"})
    mean, var = torch.zeros(3), torch.ones(3)
    y = mode.batch_norm("bn", torch.randn(50, 3) * 7 + 2, torch.ones(3), torch.zeros(3), mean, var, 1e-5)
    assert torch.allclose(y.mean(0), torch.zeros(3), atol=1e-5)
    assert mean.abs().sum() == 0
    assert (var - 1).abs().sum() == 0
    assert mode.counted(0).mean == {}
