"""The validation split: disjoint, complete, seeded, stratified."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxnas.data.splitting import hold_out, validation_size


@pytest.mark.parametrize(
    ("n", "size"), [(8, 2), (40, 10), (400, 100), (1500, 150), (49_059, 4906), (1_000_000, 5000)]
)
def test_size(n: int, size: int) -> None:
    assert validation_size(n) == size


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 400), min_size=2, max_size=8), st.integers(0, 2**32))
def test_is_a_stratified_partition(counts: list[int], seed: int) -> None:
    y = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    n = len(y)
    if n < 8:
        return
    train, val = hold_out(n, y, seed)
    assert np.array_equal(np.sort(np.concatenate([train, val])), np.arange(n))
    share = validation_size(n) / n
    for label, count in enumerate(counts):
        taken = int((y[val] == label).sum())
        assert abs(taken - share * count) <= 1
        assert taken < count


def test_seed() -> None:
    y = np.arange(1000) % 10
    assert np.array_equal(hold_out(1000, y, 1)[1], hold_out(1000, y, 1)[1])
    assert not np.array_equal(hold_out(1000, y, 1)[1], hold_out(1000, y, 2)[1])
    assert np.array_equal(np.bincount(y[hold_out(1000, y, 1)[1]]), np.full(10, 10))


def test_without_labels_it_is_random() -> None:
    train, val = hold_out(1000, None, 0)
    assert len(val) == 100
    assert len(np.intersect1d(train, val)) == 0
    assert not np.array_equal(val, np.arange(len(val)))
