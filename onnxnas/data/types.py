"""What a loaded data set is: frozen values, numpy arrays as they were stored."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from onnxnas.errors import DataError

Array = NDArray[Any]
Task = Literal["classification", "segmentation", "regression", "distillation"]
Layout = Literal["nchw", "nhwc"]

#: Label of pixels that belong to no class (segmentation); also what crops are padded with.
IGNORE = 255


@dataclass(frozen=True, eq=False)
class Split:
    """Samples: `x` maps each model input to an array of n samples; `y` holds n targets or is None."""

    x: Mapping[str, Array]
    y: Array | None
    n: int

    def take(self, index: NDArray[np.int64]) -> Split:
        """The samples of these indices, in this order (a copy)."""
        y = None if self.y is None else self.y[index]
        return Split({name: array[index] for name, array in self.x.items()}, y, len(index))

    def joined(self, other: Split) -> Split:
        """These samples, then those of `other`, of the same inputs and kind of targets (a copy)."""
        x = {name: np.concatenate([array, other.x[name]]) for name, array in self.x.items()}
        y = None if self.y is None or other.y is None else np.concatenate([self.y, other.y])
        return Split(x, y, self.n + other.n)


@dataclass(frozen=True)
class Normalise:
    """From stored values to model inputs: `(raw * scale - mean) / std`, then to the model's layout.

    `mean` and `std` are per channel, or a single value. `layout` is that of the stored arrays and
    `model_layout` that of the model's input; both are None when the input is not an image.
    """

    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: Layout | None = None
    model_layout: Layout | None = None

    def affine(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """`a, b` (one value or one per channel) such that the normalised value is `raw * a + b`."""
        mean, std = np.asarray(self.mean, np.float64), np.asarray(self.std, np.float64)
        a, b = np.broadcast_arrays(self.scale / std, -mean / std)
        return a.astype(np.float32), b.astype(np.float32)

    @property
    def identity(self) -> bool:
        """Whether values stay as they are (the layout may still change)."""
        return self.scale == 1.0 and set(self.mean) == {0.0} and set(self.std) == {1.0}


@dataclass(frozen=True, eq=False)
class DataSet:
    """Data for one model, checked against its inputs.

    `dtypes` are the model's, by input. `images` are the inputs that are normalised, and augmented when
    they have four dimensions. `augment` holds 'crop' and 'flip'. `notes` are sentences for the user about
    what was assumed. `digest` is the SHA-256 of everything: samples, splits, settings. `class_axis` is the axis
    of the first output that holds classes, if one does. `seen` says that `train` has the samples of `val` too, which
    then tell nothing of what was learnt.
    """

    train: Split
    val: Split
    test: Split | None
    task: Task
    metric: str
    loss: str
    augment: tuple[str, ...]
    normalise: Normalise
    dtypes: Mapping[str, np.dtype[Any]]
    images: frozenset[str]
    classes: tuple[str, ...] | None
    notes: tuple[str, ...]
    digest: str
    class_axis: int = 1
    seen: bool = False

    def split(self, name: str) -> Split:
        """'train', 'val' or 'test'.

        Raises:
            KeyError: another name, or there is no test split.
        """
        found = {"train": self.train, "val": self.val, "test": self.test}[name]
        if found is None:
            raise KeyError(name)
        return found

    def with_validation(self) -> DataSet:
        """The same with the validation samples among those for training, once they have served to choose.

        Raises as `spare_validation`.
        """
        self.spare_validation()
        digest = hashlib.sha256(f"{self.digest} and validation".encode()).hexdigest()
        return replace(self, train=self.train.joined(self.val), digest=digest, seen=True)

    def spare_validation(self) -> None:
        """Make sure that test samples are left to judge by without those for validation.

        Raises:
            DataError: there are none.
        """
        if self.test is None:
            raise DataError(
                "training on the validation samples too leaves none to judge by: got no test samples; give some, or "
                "set finalise.samples to 'train'"
            )


def crop_padding(height: int, width: int) -> int:
    """Zeros put on each side before a random crop: an eighth of the smaller side, as 4 for 32 x 32."""
    return max(1, min(height, width) // 8)
