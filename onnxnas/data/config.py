"""The YAML file that describes a data set."""

from __future__ import annotations

import difflib
import math
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, field_validator

from onnxnas.data.types import Layout, Task
from onnxnas.errors import DataError


def _number(value: Any) -> Any:
    """Also accepts a fraction as text, such as `1/127.5`: YAML reads it as a string."""
    if isinstance(value, str):
        above, *below = (part.strip() for part in value.split("/", 1))
        try:
            return float(Fraction(above) / Fraction(below[0] if below else 1))
        except (ValueError, ZeroDivisionError):
            raise ValueError(f"{value!r} is not a number") from None
    return value


def _numbers(value: Any) -> Any:
    return tuple(_number(v) for v in value) if isinstance(value, list | tuple) else (_number(value),)


def _names(value: Any) -> Any:
    return () if value is None else (value,) if isinstance(value, str) else value


Numbers = Annotated[tuple[float, ...], BeforeValidator(_numbers)]


class DataConfig(BaseModel):
    """Keys of the file. Paths are relative to the file. `None` means: not said."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: str
    val: str | None = None
    test: str | None = None
    layout: Layout | None = None
    scale: Annotated[float | None, BeforeValidator(_number)] = None
    mean: Numbers = (0.0,)
    std: Numbers = (1.0,)
    augment: Annotated[tuple[Literal["crop", "flip"], ...], BeforeValidator(_names)] = ()
    task: Task | None = None
    metric: str | None = None
    loss: str | None = None

    @field_validator("scale")
    @classmethod
    def _finite_scale(cls, value: float | None) -> float | None:
        if value is not None and (not math.isfinite(value) or value == 0):
            raise ValueError("must be finite and not 0")
        return value

    @field_validator("mean")
    @classmethod
    def _finite_mean(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value or not all(math.isfinite(v) for v in value):
            raise ValueError("must be finite numbers, one or one per channel")
        return value

    @field_validator("std")
    @classmethod
    def _positive_std(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value or not all(math.isfinite(v) and v > 0 for v in value):
            raise ValueError("must be positive numbers, one or one per channel")
        return value


def read_config(path: Path) -> DataConfig:
    """Reads and checks the file.

    Raises:
        DataError: unreadable, not YAML, an unknown key (the nearest one is suggested), a bad value.
    """
    try:
        body = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise DataError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(body, dict):
        raise DataError(f"{path}: expected keys such as train, val, test; got {type(body).__name__}")
    known = list(DataConfig.model_fields)
    for key in body:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1, 0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
            raise DataError(f"{path}: unknown key {key!r}; {hint}")
    try:
        return DataConfig.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][:1])
        if first["type"] == "missing":
            raise DataError(f"{path}: key {where!r} is missing: the path of the training data") from error
        message = first["msg"].removeprefix("Value error, ")
        raise DataError(f"{path}: {where}: {message}; got {body.get(where)!r}") from error
