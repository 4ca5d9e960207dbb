"""A validation split taken from the training data: seeded, stratified by label where there are labels;
and whether splits share samples."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from onnxnas.data.types import Array, Split

SHARE = 0.1
LARGEST = 5000
SMALLEST = 100


def validation_size(n: int) -> int:
    """A tenth of n; at least 100 if that is no more than a quarter of n; at most 5,000; at least 1."""
    return max(1, min(LARGEST, max(round(SHARE * n), min(SMALLEST, n // 4))))


def hold_out(n: int, y: Array | None, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices (train, val), disjoint and each sorted; together they are 0 .. n-1.

    With labels `y` of shape [n], each class gives in proportion to its size (largest remainders), and never
    its last sample. Otherwise the split is uniformly random.
    """
    rng = np.random.default_rng([seed, 0x5B117])
    size = validation_size(n)
    order = rng.permutation(n)
    if y is None or y.ndim != 1 or y.dtype.kind not in "iu":
        val = np.sort(order[:size])
    else:
        classes, member = np.unique(y, return_inverse=True)
        quota = _apportion(np.bincount(member, minlength=len(classes)), size)
        val = np.sort(np.concatenate([order[member[order] == c][: quota[c]] for c in range(len(classes))]))
    keep = np.ones(n, bool)
    keep[val] = False
    return np.flatnonzero(keep), val.astype(np.int64)


def _apportion(counts: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """How many of each class, summing to `size` where no class has to give its last sample."""
    exact = counts * (size / counts.sum())
    quota = np.floor(exact).astype(np.int64)
    for c in np.argsort(quota - exact, kind="stable")[: size - int(quota.sum())]:
        quota[c] += 1
    smaller: NDArray[np.int64] = np.minimum(quota, counts - 1)
    return smaller


def common(a: Split, b: Split) -> int:
    """How many samples of `b` are, to the last bit, also in `a`."""
    known = set(_keys(a))
    return sum(key in known for key in _keys(b))


def _keys(split: Split) -> Iterator[int]:
    for i in range(split.n):
        yield hash(tuple(array[i].tobytes() for _, array in sorted(split.x.items())))
