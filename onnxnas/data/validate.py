"""Judging samples against the model: each refusal names the first bad index."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxnas.data.types import IGNORE, Array, Layout, Normalise, Split, Task
from onnxnas.errors import DataError
from onnxnas.types import TensorInfo

#: Training samples below which nothing sensible can be trained or split.
MINIMUM_TRAIN = 8
_CHUNK = 64 << 20


def expected_dims(info: TensorInfo) -> tuple[int | None, ...]:
    """Sizes that a sample must have, without the batch axis; None where the model takes any size."""
    if info.declared is not None:
        return tuple(d if isinstance(d, int) else None for d in info.declared[1:])
    return tuple(info.shape[1:]) if info.shape is not None else ()


def fits(shape: Sequence[int], dims: Sequence[int | None]) -> bool:
    """Whether a sample of this shape is one the model takes."""
    return len(shape) == len(dims) and all(d is None or s == d for s, d in zip(shape, dims, strict=True))


def check_input(where: str, info: TensorInfo, array: Array, layout: Layout | None) -> Normalise:
    """Shape, rank and dtype of one input's samples; returns the layouts found (no scale, mean, std yet).

    Raises:
        DataError: not what the model takes.
    """
    if info.shape is None and info.declared is None:
        raise DataError(f"model input {info.name!r}: unknown shape; give the model one")
    dims = expected_dims(info)
    name = f"{where}: {info.name}"
    if array.ndim == 0 or len(array) == 0:
        raise DataError(f"{name}: no samples; got shape {array.shape}, expected {_text(dims)}")
    _check_dtype(name, info, array)
    shape = array.shape[1:]
    if len(dims) != 3:
        if not fits(shape, dims):
            raise DataError(f"{name}: wrong shape: got {_text(shape)}, expected {_text(dims)}")
        return Normalise()
    model = model_layout(dims)
    for stored in (layout,) if layout else (model, _other(model)):
        as_model = shape if stored == model else _transposed(shape, model)
        if len(shape) == 3 and fits(as_model, dims) and (stored == model or layout or dims_known(dims)):
            return Normalise(layout=stored, model_layout=model)
    said = f" stored as {layout}" if layout else ""
    raise DataError(f"{name}: wrong shape{said}: got {_text(shape)}, expected {_text(dims)} ({model})")


def model_layout(dims: Sequence[int | None]) -> Layout:
    """nchw unless only the last axis can be the channels of an image."""
    return "nhwc" if dims[2] in (1, 3, 4) and dims[0] not in (1, 3, 4) else "nchw"


def dims_known(dims: Sequence[int | None]) -> bool:
    """Whether the channel axis is fixed, without which a layout would be a guess."""
    return dims[0] is not None or dims[2] is not None


def _other(layout: Layout) -> Layout:
    return "nhwc" if layout == "nchw" else "nchw"


def _transposed(shape: Sequence[int], to: Layout) -> tuple[int, ...]:
    if len(shape) != 3:
        return ()
    return (shape[2], shape[0], shape[1]) if to == "nchw" else (shape[1], shape[2], shape[0])


def _check_dtype(name: str, info: TensorInfo, array: Array) -> None:
    wanted = info.dtype
    if wanted is None:
        raise DataError(f"model input {info.name!r}: unknown element type")
    kinds = {"f": "fiub", "i": "iub", "u": "iub", "b": "biu"}.get(wanted.kind, "")
    if array.dtype.kind not in kinds:
        raise DataError(f"{name}: wrong dtype: got {array.dtype}, the model takes {wanted.name}")


def check_values(where: str, info: TensorInfo, array: Array) -> None:
    """Every value finite and representable in the model's dtype.

    Raises:
        DataError: with the first bad sample and the position in it.
    """
    wanted = np.dtype(np.float32) if info.dtype is None else info.dtype
    if wanted.kind == "f" and array.dtype.kind != "f":
        return
    step = max(1, _CHUNK // max(1, array[0].nbytes))
    for start in range(0, len(array), step):
        chunk = array[start : start + step]
        good = _good(chunk, wanted)
        if good.all():
            continue
        position = np.unravel_index(int(np.argmin(good)), good.shape)
        value = chunk[position]
        index = start + int(position[0])
        inside = tuple(int(p) for p in position[1:])
        what = "NaN" if value != value else str(value)
        raise DataError(
            f"{where}: {info.name}[{index}] holds {what} at {inside}; expected finite {wanted.name} values"
        )


def _good(chunk: Array, wanted: np.dtype[Any]) -> Array:
    if wanted.kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(np.isfinite(chunk.astype(wanted, copy=False)))
    low, high = (0, 1) if wanted.kind == "b" else (np.iinfo(wanted).min, np.iinfo(wanted).max)
    if chunk.dtype.kind == "b" or (int(chunk.min()) >= low and int(chunk.max()) <= high):
        return np.ones(chunk.shape, bool)
    return np.asarray((chunk >= max(low, _bound(chunk, 0))) & (chunk <= min(high, _bound(chunk, 1))))


def _bound(chunk: Array, end: int) -> int:
    limits = np.iinfo(chunk.dtype)
    return int(limits.max if end else limits.min)


def check_lengths(where: str, x: dict[str, Array], y: Array | None) -> int:
    """The number of samples.

    Raises:
        DataError: arrays of different lengths.
    """
    lengths = {name: len(array) for name, array in x.items()}
    if y is not None:
        lengths["y"] = len(y) if y.ndim else 0
    n = next(iter(lengths.values()))
    for name, length in lengths.items():
        if length != n:
            first = next(iter(lengths))
            raise DataError(f"{where}: {name} has {length} samples, {first} has {n}")
    return n


def infer_task(where: str, y: Array | None, outputs: Sequence[TensorInfo] | None) -> Task:
    """The task that the labels say, when the user did not.

    Raises:
        DataError: labels that say none: floats that are not shaped like the model's output.
    """
    if y is None:
        return "distillation"
    if y.dtype.kind in "iub":
        return "segmentation" if y.ndim >= 3 else "classification"
    dims = output_dims(outputs)
    if y.dtype.kind == "f" and y.ndim > 1 and (dims is None or fits(y.shape[1:], dims)):
        return "regression"
    expected = "" if dims is None else f" (for regression: {_text(dims)})"
    raise DataError(f"{where}: y is {y.dtype} of shape {y.shape}: class labels must be integers{expected}")


def check_labels(where: str, y: Array, task: Task, outputs: Sequence[TensorInfo] | None) -> Array:
    """Labels as the task needs them: int64 [n] for classes, any integer [n, H, W], float32 for regression.

    Raises:
        DataError: wrong dtype or shape, or a label out of the range of the model's classes.
    """
    dims = output_dims(outputs)
    if task == "regression":
        return _check_regression(where, y, dims)
    if y.dtype.kind not in "iub":
        raise DataError(f"{where}: y[0] is {y.dtype}: class labels must be integers, 0 .. classes-1")
    if task == "classification" and y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if task == "classification" and y.ndim == 2 and dims is not None and len(dims) == 1:
        raise DataError(
            f"{where}: y has shape {y.shape}; expected one integer per sample (y.argmax(1) if one-hot)"
        )
    if task == "segmentation" and y.ndim < 3:
        raise DataError(f"{where}: y has shape {y.shape}; segmentation needs a class per pixel, [n, H, W]")
    count = class_count(dims, y)
    if dims and None not in dims and (count is None or count < 2):
        raise DataError(
            f"{where}: the model's output {_text(dims)} has no scores of two or more classes for y {y.shape}"
        )
    bad = y < 0 if y.dtype.kind == "i" else np.zeros(y.shape, bool)
    if count is not None and y.dtype.kind != "b":
        bad = bad | (y >= count)
    if task == "segmentation":
        bad = bad & (y != IGNORE)
    if bad.any():
        position = np.unravel_index(int(np.argmax(bad)), bad.shape)
        inside = "".join(f"[{int(p)}]" for p in position)
        top = "" if count is None else f" .. {count - 1}: the model has {count} classes"
        raise DataError(f"{where}: y{inside} is {y[position]}; expected labels 0{top}")
    return y.astype(np.int64) if task == "classification" else y


def _check_regression(where: str, y: Array, dims: Sequence[int | None] | None) -> Array:
    if y.dtype.kind not in "fiu":
        raise DataError(f"{where}: y is {y.dtype}: regression needs numbers")
    if y.ndim == 1 and (dims is None or tuple(dims) == (1,)):
        y = y[:, None]
    if dims is not None and not fits(y.shape[1:], dims):
        raise DataError(f"{where}: y has shape {_text(y.shape[1:])}, the model's output {_text(dims)}")
    good = np.isfinite(y.astype(np.float32)).reshape(len(y), -1).all(1)
    if not good.all():
        raise DataError(f"{where}: y[{int(np.argmin(good))}] is not finite")
    return y.astype(np.float32)


def output_dims(outputs: Sequence[TensorInfo] | None) -> tuple[int | None, ...] | None:
    """Sizes of the first output without the batch axis; None where it follows the input, or all unknown.

    A symbol that the file gives to the only axis of an output [n, K] has the inferred size.
    """
    if not outputs:
        return None
    first = outputs[0]
    if first.declared is None or (len(first.declared) == 2 and first.shape is not None):
        return None if first.shape is None else tuple(first.shape[1:])
    return expected_dims(first)


def class_count(dims: Sequence[int | None] | None, y: Array) -> int | None:
    """Number of classes K of an output `[n, K]`, `[n, K, ...]` or `[n, ..., K]`; None if unknown.

    K is the axis of the output that the labels lack: the first that fits after the batch, else the last.
    """
    if not dims:
        return None
    if y.ndim == 1:
        rest = [d for d in dims if d != 1] or [1]
        return rest[0] if len(rest) == 1 else None
    if len(dims) != y.ndim:
        return None
    if dims[0] is not None and fits(y.shape[1:], dims[1:]):
        return dims[0]
    return dims[-1] if fits(y.shape[1:], dims[:-1]) else None


def check_enough(where: str, split: Split, task: Task) -> None:
    """Enough samples to train on, of more than one class.

    Raises:
        DataError: fewer than 8 samples, or one class only.
    """
    if split.n < MINIMUM_TRAIN:
        raise DataError(f"{where}: {split.n} samples; at least {MINIMUM_TRAIN} are needed to train")
    if task == "classification" and split.y is not None and (split.y == split.y.flat[0]).all():
        raise DataError(f"{where}: one class only: every label is {split.y.flat[0]}")


def check_known(name: str, known: Sequence[str], what: str) -> None:
    """A known name or a `module:name`.

    Raises:
        DataError: neither; the nearest known name is suggested.
    """
    if ":" in name or name in known:
        return
    near = difflib.get_close_matches(name, known, 1, 0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)} or module:name"
    raise DataError(f"{what} {name!r} is not known; {hint}")


def _text(dims: Sequence[int | None]) -> str:
    return "[n" + "".join(f", {'any' if d is None else d}" for d in dims) + "]"
