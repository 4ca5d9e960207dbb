"""`load`: from what the user wrote to a checked `DataSet`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from onnxnas.data import validate
from onnxnas.data.axes import class_axis
from onnxnas.data.config import DataConfig, read_config
from onnxnas.data.metrics import Metric, check_metric, default_metric, get_metric
from onnxnas.data.sources import Raw, read_function, read_path, split_folders
from onnxnas.data.splitting import common, hold_out
from onnxnas.data.types import Array, DataSet, Normalise, Split, Task
from onnxnas.errors import DataError
from onnxnas.plugins import is_reference
from onnxnas.types import TensorInfo

LOSSES = ("cross_entropy", "mse", "l1", "distillation")
_DEFAULT_LOSS: Mapping[Task, str] = {
    "classification": "cross_entropy",
    "segmentation": "cross_entropy",
    "regression": "mse",
    "distillation": "distillation",
}


def load(
    spec: str | Path,
    inputs: Sequence[TensorInfo],
    *,
    outputs: Sequence[TensorInfo] | None = None,
    seed: int = 0,
) -> DataSet:
    """The data set that `spec` names, checked against the model's inputs (and outputs, if given).

    `spec` is an .npz file, a folder of images per class, a .yaml file, or `module.py:function`. Without a
    validation split, a seeded stratified tenth of the training data (at most 5,000) becomes one. Images
    stay as they are stored (uint8) and are normalised batch by batch.

    Raises:
        DataError: anything that cannot be used, with the first bad index.
    """
    if not inputs:
        raise DataError("the model has no inputs to feed data to")
    found, config = _read(str(spec), inputs)
    return _Builder(list(inputs), outputs, config, seed).build(found)


def _read(spec: str, inputs: Sequence[TensorInfo]) -> tuple[dict[str, Raw], DataConfig]:
    path = Path(spec)
    if not path.exists() and is_reference(spec):
        return read_function(spec, inputs), DataConfig(train=spec)
    if path.suffix in (".yaml", ".yml"):
        config = read_config(path) if path.exists() else _missing(path)
        paths = {"train": config.train, "val": config.val, "test": config.test}
        return _read_all({k: path.parent / v for k, v in paths.items() if v is not None}, inputs), config
    nested = split_folders(path) if path.is_dir() else {}
    return _read_all(nested or {"train": path}, inputs), DataConfig(train=spec)


def _missing(path: Path) -> DataConfig:
    raise DataError(f"{path}: no such file or folder")


def _read_all(paths: Mapping[str, Path], inputs: Sequence[TensorInfo]) -> dict[str, Raw]:
    train = read_path(paths["train"], inputs)
    rest = {k: read_path(p, inputs, train.classes) for k, p in paths.items() if k != "train"}
    return {"train": train, **rest}


@dataclass
class _Builder:
    inputs: list[TensorInfo]
    outputs: Sequence[TensorInfo] | None
    config: DataConfig
    seed: int

    def build(self, found: dict[str, Raw]) -> DataSet:
        notes: list[str] = []
        task = self._task(found["train"])
        images = self._images()
        normalise = self._normalise(found["train"], images, notes)
        splits = {name: self._split(raw, task, normalise, images) for name, raw in found.items()}
        validate.check_enough(found["train"].where, splits["train"], task)
        if "val" not in splits:
            y = splits["train"].y if task == "classification" else None
            train, val = hold_out(splits["train"].n, y, self.seed)
            splits |= {"train": splits["train"].take(train), "val": splits["train"].take(val)}
            how = "stratified" if y is not None else "random"
            notes.append(
                f"no val given: a {how} split of train was taken ({len(val):,} of {len(train) + len(val):,})"
            )
        notes += _overlaps(splits)
        if task == "distillation":
            notes.append("no labels: the original model's outputs are the target")
        metric = self.config.metric or default_metric(task, splits["train"].y)
        loss = self.config.loss or _DEFAULT_LOSS[task]
        check_metric(metric)
        validate.check_known(loss, LOSSES, "loss")
        dataset = DataSet(
            train=splits["train"],
            val=splits["val"],
            test=splits.get("test"),
            task=task,
            metric=metric,
            loss=loss,
            augment=self._augment(splits["train"], images, normalise),
            normalise=normalise,
            dtypes={i.name: i.dtype or np.dtype(np.float32) for i in self.inputs},
            images=images,
            classes=found["train"].classes,
            notes=tuple(notes),
            digest="",
            class_axis=class_axis(self.outputs, self.inputs, splits["train"].y),
        )
        return replace(dataset, digest=digest(dataset))

    def _task(self, raw: Raw) -> Task:
        if self.config.task == "distillation":
            return "distillation"
        if self.config.task is not None and raw.y is None:
            raise DataError(f"{raw.where}: task {self.config.task} needs labels: an array 'y'")
        return self.config.task or validate.infer_task(raw.where, raw.y, self.outputs)

    def _images(self) -> frozenset[str]:
        """The inputs that scale, mean, std, augment are meant for: a single float one, or those of rank 4."""
        floats = [i for i in self.inputs if i.dtype is not None and i.dtype.kind == "f"]
        if len(self.inputs) > 1:
            floats = [i for i in floats if len(validate.expected_dims(i)) == 3]
        return frozenset(i.name for i in floats)

    def _normalise(self, raw: Raw, images: frozenset[str], notes: list[str]) -> Normalise:
        normalise = Normalise()
        for info in self.inputs:
            layouts = self._layouts(raw, info)
            if info.name in images or len(self.inputs) == 1:
                normalise = layouts
        if normalise.layout != normalise.model_layout and self.config.layout is None and raw.layout is None:
            notes.append(f"layout not given: samples are taken as {normalise.layout} from their shape")
        stored = {raw.x[name].dtype for name in images}
        scale = self.config.scale
        if scale is None and any(d == np.uint8 for d in stored):
            scale = 1 / 255
            notes.append("scale not given: uint8 values are divided by 255")
        said = self.config.scale is not None or self.config.mean != (0.0,) or self.config.std != (1.0,)
        if said and not images:
            raise DataError(
                f"{raw.where}: scale, mean and std are for a float input; the model has none of that kind"
            )
        for name in sorted(images):
            self._check_channels(raw.where, raw.x[name], normalise)
        return replace(normalise, scale=scale or 1.0, mean=self.config.mean, std=self.config.std)

    def _layouts(self, raw: Raw, info: TensorInfo) -> Normalise:
        layout = raw.layout or self.config.layout
        return validate.check_input(raw.where, info, raw.x[info.name], layout)

    def _check_channels(self, where: str, array: Array, normalise: Normalise) -> None:
        if array.ndim < 2:
            return
        channels = array.shape[-1 if normalise.layout == "nhwc" else 1]
        for name, values in (("mean", self.config.mean), ("std", self.config.std)):
            if len(values) not in (1, channels):
                raise DataError(
                    f"{where}: {name} has {len(values)} values; expected 1 or {channels} (channels)"
                )

    def _split(self, raw: Raw, task: Task, normalise: Normalise, images: frozenset[str]) -> Split:
        for info in self.inputs:
            layouts = self._layouts(raw, info)
            if info.name in images and layouts.layout != normalise.layout:
                raise DataError(
                    f"{raw.where}: {info.name} is {layouts.layout}, the training data {normalise.layout}"
                )
        n = validate.check_lengths(raw.where, raw.x, raw.y)
        for info in self.inputs:
            validate.check_values(raw.where, info, raw.x[info.name])
        if task == "distillation":
            return Split(raw.x, None, n)
        if raw.y is None:
            raise DataError(f"{raw.where}: no labels 'y', unlike the training data")
        return Split(raw.x, validate.check_labels(raw.where, raw.y, task, self.outputs), n)

    def _augment(self, train: Split, images: frozenset[str], normalise: Normalise) -> tuple[str, ...]:
        chosen = tuple(dict.fromkeys(self.config.augment))
        if not chosen:
            return ()
        sizes = {_size(train.x[name], normalise) for name in images if train.x[name].ndim == 4}
        if len(sizes) != 1:
            raise DataError(f"augment {list(chosen)} needs image inputs of one size; found {sorted(sizes)}")
        dense = train.y is not None and train.y.ndim >= 3
        if dense and train.y is not None and train.y.shape[-2:] != next(iter(sizes)):
            raise DataError(
                f"augment {list(chosen)}: targets {train.y.shape[1:]} are not of the images' size"
            )
        return chosen


def _overlaps(splits: Mapping[str, Split]) -> list[str]:
    notes = []
    for name in ("val", "test"):
        if name in splits and (count := common(splits["train"], splits[name])):
            notes.append(f"{count:,} of {splits[name].n:,} {name} samples are also in train")
    return notes


def _size(array: Array, normalise: Normalise) -> tuple[int, int]:
    first = 1 if normalise.layout == "nhwc" else 2
    return int(array.shape[first]), int(array.shape[first + 1])


def metric_of(dataset: DataSet) -> Metric:
    """The metric that the data set asks for. Raises DataError, ConfigError."""
    return get_metric(dataset.metric, dataset.class_axis)


def digest(dataset: DataSet) -> str:
    """SHA-256 (hex) of the settings and of every sample of every split."""
    settings: dict[str, Any] = {
        "task": dataset.task,
        "metric": dataset.metric,
        "loss": dataset.loss,
        "augment": dataset.augment,
        "normalise": asdict(dataset.normalise),
        "dtypes": {k: v.name for k, v in sorted(dataset.dtypes.items())},
    }
    state = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, split in (("train", dataset.train), ("val", dataset.val), ("test", dataset.test)):
        if split is None:
            continue
        arrays = sorted(split.x.items()) + ([("y", split.y)] if split.y is not None else [])
        for key, array in arrays:
            state.update(f"{name}/{key}/{array.dtype.str}/{array.shape}".encode())
            state.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return state.hexdigest()
