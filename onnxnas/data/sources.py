"""Reading samples: .npz files, folders of images, Python functions. Nothing is judged here yet."""

from __future__ import annotations

import difflib
import os
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from onnxnas.data.types import Array, Layout
from onnxnas.errors import ConfigError, DataError
from onnxnas.plugins import load_object
from onnxnas.types import TensorInfo

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}
)
_MEMORY_SHARE = 0.6
_UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    MemoryError,  # a damaged header can claim any size
    NotImplementedError,  # an unusual compression
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True, eq=False)
class Raw:
    """Samples as found. `layout` is known for decoded images; `classes` for folders."""

    where: str
    x: dict[str, Array]
    y: Array | None
    layout: Layout | None = None
    classes: tuple[str, ...] | None = None


def read_path(path: Path, inputs: Sequence[TensorInfo], classes: tuple[str, ...] | None = None) -> Raw:
    """Samples of an .npz file or of a folder with one sub-folder of images per class.

    `classes` fixes the numbering of the sub-folders (that of the training split).

    Raises:
        DataError: no such path, neither of the two, unreadable, or not this model's inputs.
    """
    if path.is_dir():
        return _read_folder(path, inputs, classes)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if path.suffix != ".npz":
        raise DataError(f"{path}: expected an .npz file, a folder of images per class, or a .yaml file")
    return _read_npz(path, inputs)


def split_folders(path: Path) -> dict[str, Path]:
    """{'train': ..., 'val': ..., 'test': ...} when these are the only sub-folders, each with classes."""
    folders = {p.name: p for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")}
    if "train" not in folders or not set(folders) <= {"train", "val", "test"} or len(folders) < 2:
        return {}
    nested = all(any(child.is_dir() for child in p.iterdir()) for p in folders.values())
    return folders if nested else {}


def _read_npz(path: Path, inputs: Sequence[TensorInfo]) -> Raw:
    names = [i.name for i in inputs]
    try:
        with path.open("rb") as opened, np.lib.npyio.NpzFile(opened, allow_pickle=False) as file:
            found = list(file.files)
            wanted = _match_names(path, found, names)
            x = {name: file[key] for name, key in wanted.items()}
            y = file["y"] if "y" in found and "y" not in wanted.values() else None
    except _UNREADABLE as error:
        raise DataError(
            f"{path}: not a readable .npz of plain arrays: {' '.join(str(error).split())}"
        ) from error
    return Raw(str(path), x, y)


def _match_names(path: Path, found: list[str], names: list[str]) -> dict[str, str]:
    if len(names) == 1 and names[0] not in found and "x" in found:
        wanted = {names[0]: "x"}
    else:
        wanted = {name: name for name in names}
    missing = [name for name in wanted.values() if name not in found]
    if missing:
        near = difflib.get_close_matches(missing[0], found, 1, 0.5)
        hint = f"did you mean {near[0]!r}?" if near else "name arrays after the model's inputs"
        one = " (or 'x')" if len(names) == 1 else ""
        raise DataError(f"{path}: no array for model input {missing[0]!r}{one}; found {found}; {hint}")
    unknown = [key for key in found if key not in wanted.values() and key != "y"]
    if unknown:
        raise DataError(
            f"{path}: array {unknown[0]!r} is no model input; expected {names} and optionally 'y'"
        )
    return wanted


def _read_folder(path: Path, inputs: Sequence[TensorInfo], classes: tuple[str, ...] | None) -> Raw:
    if len(inputs) != 1:
        raise DataError(f"{path}: a folder of images feeds one input; the model has {len(inputs)}; use .npz")
    channels, height, width = _image_size(path, inputs[0])
    found = tuple(sorted(p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")))
    if not found:
        raise DataError(f"{path}: no sub-folders; expected one sub-folder of images per class")
    unknown = sorted(set(found) - set(classes or found))
    if unknown:
        raise DataError(
            f"{path}: class {unknown[0]!r} is not among the training classes {list(classes or ())}"
        )
    classes = classes or found
    files = [(p, classes.index(name)) for name in found for p in sorted((path / name).rglob("*"))]
    files = [(p, label) for p, label in files if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
    if not files:
        raise DataError(f"{path}: no images in its sub-folders ({', '.join(sorted(IMAGE_SUFFIXES))})")
    require_memory(len(files) * channels * height * width, str(path))
    x = np.empty((len(files), height, width, channels), np.uint8)
    for i, (file, _) in enumerate(files):
        x[i] = _decode(file, i, channels, height, width)
    y = np.array([label for _, label in files], np.int64)
    return Raw(str(path), {inputs[0].name: x}, y, "nhwc", classes)


def _image_size(path: Path, info: TensorInfo) -> tuple[int, int, int]:
    shape = info.shape
    if shape is not None and len(shape) == 4:
        if shape[1] in (1, 3, 4):
            return shape[1], shape[2], shape[3]
        if shape[3] in (1, 3, 4):
            return shape[3], shape[1], shape[2]
    raise DataError(f"{path}: images do not fit model input {info.name!r} of shape {shape}; use .npz")


def _decode(file: Path, index: int, channels: int, height: int, width: int) -> Array:
    """Shorter side scaled to fit, then the centre cut out; an image of the right size is left as it is."""
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    try:
        with Image.open(file) as opened:
            image = opened.convert(mode)
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{file}: image {index} cannot be read: {' '.join(str(error).split())}") from error
    if image.size != (width, height):
        ratio = max(width / image.width, height / image.height)
        size = (max(width, round(image.width * ratio)), max(height, round(image.height * ratio)))
        image = image.resize(size, Image.Resampling.BILINEAR)
        left, top = (size[0] - width) // 2, (size[1] - height) // 2
        image = image.crop((left, top, left + width, top + height))
    return np.asarray(image, np.uint8).reshape(height, width, channels)


def read_function(spec: str, inputs: Sequence[TensorInfo]) -> dict[str, Raw]:
    """Splits from `module.py:function`, called without arguments.

    It returns a data set (`len` and indexing; torch's map-style `Dataset` is one), a tuple of up to three
    (train, val, test) or a mapping of these names. A sample is `x`, `(x, y)`, or `(dict by input, y)`.

    Raises:
        DataError: the function fails, returns something else, or a sample has another shape than the first.
    """
    try:
        function = load_object(spec, what="data function")
        made = function()
    except ConfigError as error:
        raise DataError(str(error)) from error
    except Exception as error:
        raise DataError(f"data function {spec!r}: {type(error).__name__}: {error}") from error
    if isinstance(made, dict):
        parts = dict(made)
    elif isinstance(made, tuple | list) and len(made) <= 3 and not _is_sample_list(made):
        parts = dict(zip(("train", "val", "test"), made, strict=False))
    else:
        parts = {"train": made}
    parts = {name: part for name, part in parts.items() if part is not None}
    if "train" not in parts or not set(parts) <= {"train", "val", "test"}:
        raise DataError(f"data function {spec!r}: expected train, val, test; got {sorted(map(str, parts))}")
    return {name: _materialise(f"{spec} {name}", part, inputs) for name, part in parts.items()}


def _is_sample_list(made: Sequence[Any]) -> bool:
    return bool(made) and not all(part is None or hasattr(part, "__getitem__") for part in made)


def _materialise(where: str, dataset: Any, inputs: Sequence[TensorInfo]) -> Raw:
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise DataError(f"{where}: expected a data set with len() and indexing, got {type(dataset).__name__}")
    n = len(dataset)
    x: dict[str, Array] = {}
    y: Array | None = None
    for i in range(n):
        try:
            sample = dataset[i]
        except Exception as error:
            raise DataError(f"{where}: sample {i}: {type(error).__name__}: {error}") from error
        values, label = _sample(where, i, sample, inputs)
        if i == 0:
            require_memory(n * sum(v.nbytes for v in values.values()), where)
            x = {name: np.empty((n, *v.shape), v.dtype) for name, v in values.items()}
            y = None if label is None else np.empty((n, *label.shape), label.dtype)
        for name, value in values.items():
            x[name][i] = _same(where, i, name, value, x[name])
        if (label is None) != (y is None):
            raise DataError(
                f"{where}: sample {i} {'lacks' if label is None else 'has'} a label, unlike sample 0"
            )
        if y is not None and label is not None:
            y[i] = _same(where, i, "y", label, y)
    return Raw(where, x or {i.name: np.empty((0,)) for i in inputs}, y)


def _sample(
    where: str, i: int, sample: Any, inputs: Sequence[TensorInfo]
) -> tuple[dict[str, Array], Array | None]:
    values, label = sample, None
    if isinstance(sample, tuple | list):
        if len(sample) not in (1, 2):
            raise DataError(f"{where}: sample {i} has {len(sample)} parts; expected (x, y)")
        values, label = sample[0], sample[1] if len(sample) == 2 else None
    if not isinstance(values, dict):
        if len(inputs) != 1:
            raise DataError(
                f"{where}: sample {i} needs a dict by input name; the model has {len(inputs)} inputs"
            )
        values = {inputs[0].name: values}
    missing = [info.name for info in inputs if info.name not in values]
    if missing:
        raise DataError(f"{where}: sample {i} has no input {missing[0]!r}; found {sorted(map(str, values))}")
    arrays = {info.name: np.asarray(values[info.name]) for info in inputs}
    return arrays, None if label is None else np.asarray(label)


def _same(where: str, i: int, name: str, value: Array, store: Array) -> Array:
    if value.shape != store.shape[1:] or value.dtype != store.dtype:
        got, expected = (value.shape, value.dtype.name), (store.shape[1:], store.dtype.name)
        raise DataError(f"{where}: sample {i}: {name} is {got}, expected {expected} as in sample 0")
    return value


def require_memory(size: int, where: str) -> None:
    """Refuses data of `size` bytes that would take most of this machine's memory.

    Raises:
        DataError: more than 60 % of the physical memory.
    """
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > _MEMORY_SHARE * total:
        raise DataError(
            f"{where}: {size / 2**30:.1f} GiB of samples, {total / 2**30:.1f} GiB of memory; give fewer"
        )
