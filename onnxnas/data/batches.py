"""Batches as numpy arrays: normalised, in the model's layout and dtype, augmented if asked for.

The padding of a crop is the stored value zero (black), normalised like any other pixel: torchvision's
RandomCrop before Normalize, as published networks were trained. Padding with the mean colour instead changes
BatchNormalization statistics enough to cost a CIFAR ResNet-20 two points when they are recalibrated.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from onnxnas.data.types import IGNORE, Array, DataSet, Split, crop_padding

Batch = tuple[dict[str, Array], Array | None]


def prepare(dataset: DataSet, name: str, raw: Array) -> Array:
    """Stored samples of input `name` as the model takes them (a new array or, if nothing changes, `raw`)."""
    dtype = dataset.dtypes[name]
    if name not in dataset.images:
        return raw.astype(dtype, copy=False)
    rule = dataset.normalise
    x = raw.astype(np.float32, copy=False)
    if not rule.identity:
        a, b = rule.affine()
        if a.size > 1 and rule.layout != "nhwc":
            a, b = (v.reshape(-1, *(1,) * (x.ndim - 2)) for v in (a, b))
        x = x * a + b
    if x.ndim == 4 and rule.layout != rule.model_layout:
        x = x.transpose(0, 3, 1, 2) if rule.model_layout == "nchw" else x.transpose(0, 2, 3, 1)
    return np.ascontiguousarray(x.astype(dtype, copy=False))


def batches(
    split: Split,
    dataset: DataSet,
    batch_size: int,
    *,
    rng: np.random.Generator | None = None,
    augment: bool = False,
    drop_last: bool = False,
    limit: int | None = None,
) -> Iterator[Batch]:
    """Yields ({input: [b, ...]}, y [b, ...] or None); shuffled when `rng` is given.

    `augment` applies the data set's crop and flip and needs `rng`. `limit` takes only that many samples:
    the first ones, or random ones when shuffled.

    Raises:
        ValueError: batch_size below 1, or `augment` without `rng`.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; expected 1 or more")
    if augment and dataset.augment and rng is None:
        raise ValueError("augment needs rng")
    order = np.arange(split.n) if rng is None else rng.permutation(split.n)
    order = order[:limit]
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        if drop_last and len(chosen) < batch_size:
            return
        index = slice(start, start + len(chosen)) if rng is None else chosen
        x = {name: prepare(dataset, name, array[index]) for name, array in split.x.items()}
        y = None if split.y is None else split.y[index]
        if augment and rng is not None and dataset.augment:
            x, y = _augment(dataset, x, y, rng)
        yield x, y


def _augment(dataset: DataSet, x: dict[str, Array], y: Array | None, rng: np.random.Generator) -> Batch:
    nhwc = dataset.normalise.model_layout == "nhwc"
    names = [name for name in x if name in dataset.images and x[name].ndim == 4]
    height, width = x[names[0]].shape[1:3] if nhwc else x[names[0]].shape[2:]
    pad, n = crop_padding(height, width), len(x[names[0]])
    down, right = rng.integers(0, 2 * pad + 1, (2, n)) if "crop" in dataset.augment else np.full((2, n), pad)
    flip = rng.random(n) < 0.5 if "flip" in dataset.augment else np.zeros(n, bool)
    done = dict(x)
    for name in names:
        array = x[name].transpose(0, 3, 1, 2) if nhwc else x[name]
        array = crop_flip(array, down, right, flip, pad, dataset.normalise.affine()[1])
        done[name] = np.ascontiguousarray(array.transpose(0, 2, 3, 1)) if nhwc else array
    if y is not None and y.ndim >= 3:
        fill = IGNORE if y.dtype.kind in "iu" else 0
        planes = y[:, None] if y.ndim == 3 else y
        y = crop_flip(planes, down, right, flip, pad, fill).reshape(y.shape)
    return done, y


def crop_flip(
    x: Array,
    down: NDArray[np.int64],
    right: NDArray[np.int64],
    flip: NDArray[np.bool_],
    pad: int,
    fill: float | NDArray[np.float32] = 0,
) -> Array:
    """Each image of x [b, c, h, w] padded by `pad` with `fill`, cut at (down, right), mirrored where `flip`.

    `fill` is one value or one per channel. `down`, `right` and `flip` are [b]; offsets are 0 .. 2 * pad, and
    `pad` is the image itself.
    """
    b, c, h, w = x.shape
    padded = np.empty((b, c, h + 2 * pad, w + 2 * pad), x.dtype)
    padded[:] = np.reshape(fill, (-1, 1, 1))
    padded[:, :, pad : pad + h, pad : pad + w] = x
    rows = down[:, None] + np.arange(h)
    ahead = np.arange(w)
    columns = right[:, None] + np.where(flip[:, None], ahead[::-1], ahead)
    index = rows[:, :, None] * (w + 2 * pad) + columns[:, None, :]
    flat = padded.reshape(b, c, -1)
    return np.take_along_axis(flat, index.reshape(b, 1, h * w), 2).reshape(b, c, h, w)
