"""What a run is told: one typed document, resolved from preset < file < flags.

    flags         --seed 3                     win over
    file          --config run.yaml            wins over
    preset        quick | default | thorough   wins over
    defaults      of the classes below

Every problem of a document is reported at once, and an unknown key with the nearest one that exists.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from onnxnas.errors import ConfigError
from onnxnas.measure import Target
from onnxnas.pipeline import files
from onnxnas.pipeline.objectives import OBJECTIVES
from onnxnas.plugins import is_reference
from onnxnas.precision import FLOATS, LEAST_OPSET
from onnxnas.search.settings import SearchSettings
from onnxnas.train.settings import TrainSettings

PresetName = Literal["quick", "default", "thorough"]

# Every preset, one row each: the share of the budget is spent by stages/budget.py, the limits are upper bounds.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "quick": {
        "time_budget": "3m",
        "train": {"epochs": 30},
        "search": {"max_trials": 60, "population": 12, "val_limit": 1000},
        "finalise": {"finalists": 3, "epochs": 30},
    },
    "default": {
        "time_budget": "68m",
        "train": {"epochs": 60},
        "search": {"algorithm": "concurrent", "max_trials": 300, "population": 24, "val_limit": 2500},
        "finalise": {"finalists": 4, "epochs": 60},
    },
    "thorough": {
        "time_budget": "8h",
        "train": {"epochs": 240},
        "search": {"algorithm": "concurrent", "max_trials": 2000, "population": 48, "val_limit": 10000},
        "finalise": {"finalists": 8, "epochs": 60},
    },
}


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, values are checked and never changed afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SearchConfig(SearchSettings):
    """The search's own settings and how each candidate is judged. `max_trials` is an upper bound, see `Config`."""

    val_limit: int = Field(2500, ge=1, description="validation samples per candidate")
    recalibration_images: int = Field(
        1024, ge=1, description="augmented training samples for BatchNorm statistics"
    )
    timeout: float = Field(60.0, gt=0, description="seconds for one measurement of one candidate")
    memory_limit: int | None = Field(None, ge=1, description="bytes for the measuring process")
    time_layers: bool = Field(
        True, description="time layers on their own first, for algorithms that predict latency"
    )
    glance_images: int = Field(
        128,
        ge=0,
        description="validation samples of a glance at a candidate, at most an eighth of `val_limit`, for algorithms "
        "that predict quality; 0: none",
    )
    serving: dict[str, tuple[Any, ...]] = Field(
        default_factory=dict,
        description="what of the target is searched too, with the values besides its own: threads, batch, settings of "
        "the runtime",
    )
    warm_start: tuple[str, ...] = Field((), description="finished runs of the same model to learn from")
    reduce_from: tuple[str, ...] = Field(
        (), description="finished runs whose good candidates say what to keep"
    )
    reduce_threshold: float = Field(
        0.1, ge=0, le=1, description="share of the good candidates below which a choice leaves the space"
    )

    @field_validator("serving", mode="after")
    @classmethod
    def _serving(cls, value: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
        for name in ("threads", "batch"):
            for number in value.get(name, ()):
                if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                    raise ValueError(f"{name}: got {number!r}, expected whole numbers of at least 1")
        for name, values in value.items():
            if not all(isinstance(one, (bool, int, float, str)) for one in values):
                raise ValueError(f"{name}: expected numbers, texts, true or false")
        return value

    def settings(self, **changes: Any) -> SearchSettings:
        """The search's part, with changes."""
        body = self.model_dump(include=set(SearchSettings.model_fields))
        return SearchSettings.model_validate({**body, **changes})


class FinaliseConfig(Section):
    """The last step: how many finalists, how long each is fine-tuned. `epochs` is an upper bound, see `Config`."""

    finalists: int = Field(5, ge=1)
    epochs: float = Field(20, ge=0)
    lr: float | None = Field(None, gt=0, description="none: the optimizer's own for fine-tuning")
    weight_decay: float | None = Field(
        None, ge=0, description="none: that of `train`, or the optimizer's own"
    )
    mixed: float | None = Field(
        None,
        ge=0,
        le=1,
        description="share of batches of mixed pictures, as in `train`; none: that of `train`",
    )
    mirrored: bool | None = Field(
        None, description="epochs of both mirror images in turn, as in `train`; none: that of `train`"
    )
    distinct_epochs: int | None = Field(
        None, ge=1, description="after which the same batches come again; none: that of `train`"
    )
    recalibration_images: int = Field(4096, ge=1)
    measure_seconds: float = Field(7.0, gt=0, description="timed, for each of the final measurements")
    processes: int | None = Field(
        None,
        ge=1,
        description="that fine-tune, for each finalist at a time one, or several together where there are more; none: "
        "as many as there are cores and memory for, together where that is faster",
    )
    teachers: Literal["original", "finalists"] = Field(
        "original",
        description="whom finalists learn from; finalists: those taken further from what they were before too, by the "
        "mean of all answers",
    )
    recovery: float = Field(0.1, ge=0, description="share of the quality that fine-tuning may win back")
    max_seconds: float | None = Field(
        None, gt=0, description="of the stage, also as 30m or 2h; none: its share of the time budget, if any"
    )
    samples: Literal["train", "all"] = Field(
        "train",
        description="what finalists are fine-tuned on; all: on the validation samples too, which have chosen them by "
        "then; needs test samples to judge by",
    )

    @field_validator("max_seconds", mode="before")
    @classmethod
    def _max_seconds(cls, value: Any) -> Any:
        return seconds(value) if isinstance(value, str) else value


class Config(Section):
    """A whole run. Paths are as the user gave them, relative to where the command was started.

    With a `time_budget`, the epochs and trials that fit it, by the measured speed of this machine, are done;
    those given here are upper bounds.
    """

    model: str
    data: str
    output: str
    preset: PresetName = "default"
    time_budget: str | None = Field(None, description="for example 90s, 30m, 2h; none: as the limits say")
    max_drop: float | None = Field(
        None,
        ge=0,
        description="in the unit of the quality metric; none: 1, or 5 where quality is agreement with the original, in "
        "per cent, for want of labels",
    )
    objectives: tuple[str, ...] = ("latency", "macs")
    limits: dict[str, float] = Field(
        default_factory=dict, description="by objective, in its unit: the most it may be, or the least"
    )
    runtime: str = "onnxruntime"
    threads: int = Field(1, ge=1)
    batch: int = Field(1, ge=1)
    runtime_settings: dict[str, Any] = Field(
        default_factory=dict,
        description="on top of the runtime's defaults, for example INFERENCE_PRECISION_HINT: bf16 of openvino",
    )
    precision: tuple[Literal["fp32", "int8"], ...] = Field(
        ("fp32",), min_length=1, description="of all layers that can have it; several: searched"
    )
    elastic: tuple[Literal["depth", "width", "kernel"], ...] = ("depth", "width", "kernel")
    device: str = Field("auto", description="of training: auto (an accelerator if there is one), cpu, cuda")
    seed: int = Field(0, ge=0)
    shapes: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    batchnorm: Literal["auto", "insert", "keep"] = "auto"
    importance: Literal["l1", "l2", "taylor", "none"] = Field(
        "l1", description="which units a width keeps: those of large weights, or that matter to the loss"
    )
    train: TrainSettings = Field(default_factory=lambda: TrainSettings.model_validate({}))
    search: SearchConfig = Field(default_factory=lambda: SearchConfig.model_validate({}))
    finalise: FinaliseConfig = Field(default_factory=lambda: FinaliseConfig.model_validate({}))

    @field_validator("time_budget", mode="before")
    @classmethod
    def _time_budget(cls, value: Any) -> Any:
        if value is not None:
            seconds(str(value))
            return str(value)
        return value

    @field_validator("objectives", mode="after")
    @classmethod
    def _objectives(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in OBJECTIVES and not is_reference(name):
                raise ValueError(
                    f"'{name}' is not one of {', '.join(OBJECTIVES)} or module:function{nearest(name, OBJECTIVES)}"
                )
        if not value:
            raise ValueError("name at least one besides quality")
        return tuple(dict.fromkeys(value))

    @field_validator("limits", mode="after")
    @classmethod
    def _limits(cls, value: dict[str, float], info: ValidationInfo) -> dict[str, float]:
        known = ("quality", *info.data.get("objectives", ()))
        for name in value:
            if name not in known:
                raise ValueError(
                    f"'{name}' is not an objective of this run, which has {', '.join(known)}{nearest(name, known)}"
                )
        return value

    @field_validator("precision", mode="after")
    @classmethod
    def _precision(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(value))

    @property
    def least_opset(self) -> int:
        """What the graph must be able to say."""
        return 1 if self.precision == (FLOATS,) else LEAST_OPSET

    @property
    def target(self) -> Target:
        """Where the models of this run will serve, and are measured."""
        return Target(self.runtime, self.threads, self.batch, self.runtime_settings)

    @property
    def budget(self) -> float | None:
        """Seconds for the whole run, or None."""
        return None if self.time_budget is None else seconds(self.time_budget)


def seconds(text: str) -> float:
    """'90s', '30m', '1.5h' or a bare number of seconds, as seconds. Raises ValueError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)\s*", text)
    if match is None or float(match[1]) == 0:
        raise ValueError(f"'{text}' is not a time; write for example 90s, 30m or 2h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def nearest(name: str, known: Any) -> str:
    """'; did you mean X?' or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""


def resolve(flags: Mapping[str, Any], file: Path | None = None) -> Config:
    """Merge preset, file and flags into a Config. Raises ConfigError naming every problem at once."""
    body: dict[str, Any] = {} if file is None else read_yaml(file)
    where = "flags" if file is None else str(file)
    merged = merge(body, flags)
    preset = merged.get("preset", "default")
    if isinstance(preset, str) and preset in PRESETS:
        merged = merge(PRESETS[preset], merged)
    return validate(merged, where)


def validate(body: Mapping[str, Any], where: str) -> Config:
    """A Config of a complete document. Raises ConfigError naming every problem at once."""
    try:
        return Config.model_validate(dict(body))
    except ValidationError as error:
        problems = "; ".join(_problem(item) for item in error.errors())
        raise ConfigError(f"{where}: {problems}") from None


def load(path: Path) -> Config:
    """A resolved document that `save` wrote. Raises ConfigError."""
    return validate(read_yaml(path), str(path))


def save(config: Config, path: Path) -> None:
    """Write the resolved document as YAML, atomically."""
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    files.write_bytes(path, text.encode())


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file whose top level is a mapping. Raises ConfigError."""
    try:
        body = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); give a YAML file") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if body is None:
        return {}
    if not isinstance(body, dict):
        raise ConfigError(f"{path}: got a {type(body).__name__}, expected keys and values")
    return {str(key): value for key, value in body.items()}


def section(path: Path, name: str, beside: Sequence[str] = ()) -> dict[str, Any]:
    """What a YAML file has that says nothing but one section, and perhaps the keys `beside` it.

    The section is there even if the file leaves it out. Raises ConfigError.
    """
    body = read_yaml(path)
    if others := sorted(body.keys() - {name, *beside}):
        and_these = "".join(f", {key}" for key in beside)
        raise ConfigError(
            f"{path}: got {', '.join(others)}, expected a section '{name}'{and_these} and nothing else"
        )
    found = body.get(name) or {}
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: '{name}' is a {type(found).__name__}, expected keys and values")
    return {**body, name: dict(found)}


def merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """`high` over `low`, section by section."""
    merged = dict(low)
    for key, value in high.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def differences(old: Config, new: Config) -> list[str]:
    """What two documents disagree on, one 'key: old -> new' each; places do not count."""
    left, right = _flat(old.model_dump(mode="json")), _flat(new.model_dump(mode="json"))
    return [
        f"{key}: {left.get(key)} -> {right.get(key)}"
        for key in sorted(left.keys() | right.keys())
        if key not in {"output", "model", "data"} and left.get(key) != right.get(key)
    ]


def _flat(body: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in body.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _problem(item: Any) -> str:
    location = [str(part) for part in item["loc"]]
    name = ".".join(location)
    if item["type"] == "extra_forbidden":
        return f"unknown key '{name}'{nearest(location[-1], _known(location[:-1]))}"
    if item["type"] == "missing":
        return f"'{name}' is missing"
    got = "" if item["type"] == "value_error" else f" (got {item['input']!r})"
    return f"'{name}': {item['msg'].removeprefix('Value error, ')}{got}"


def _known(location: list[str]) -> list[str]:
    model: type[BaseModel] = Config
    for part in location:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)
