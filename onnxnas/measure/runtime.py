"""What an inference runtime is to this package: two small protocols.

A third party adds a runtime with one class, names it `module:name`, and proves it with
`onnxnas.testing.runtimes.RuntimeConformance`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnxnas.errors import ConfigError

Array = NDArray[Any]
Model = bytes | Path  # serialised, or a file where the weights are too large for one message
Call = Callable[[], object]


class Session(Protocol):
    """A model that is ready to run. Used by one thread at a time; several sessions may be alive at once."""

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        """The outputs of one inference, in the order of the model's graph outputs.

        `feeds` maps every model input to an array; the arrays are not changed, and the outputs do not
        alias memory that a later call overwrites. Equal feeds give equal outputs. NaN and infinity in
        the feeds go through as values. Raises `ModelError` when the feeds do not fit the model.
        """
        ...

    def bind(self, feeds: Mapping[str, Array]) -> Call:
        """A function of no arguments that makes one complete inference on `feeds`: what is timed.

        It returns when the outputs are ready. Override it where inputs can be put in place beforehand.
        """
        return lambda: self.run(feeds)


class Runtime(Protocol):
    """Loads ONNX models. Constructed without arguments; cheap to construct; imports its library late.

    It is only ever asked to load inside a measuring process, so it may crash: that is recorded as the
    fate of the candidate. Settings are JSON values; nothing of one `load` leaks into the next.
    """

    name: str

    def version(self) -> str:
        """The version of the library. Raises `EnvironmentProblem` when it is not installed."""
        ...

    def defaults(self, threads: int) -> dict[str, Any]:
        """The complete settings for `threads` threads and one request at a time. Imports nothing."""
        ...

    def knobs(self, threads: int) -> Mapping[str, tuple[Any, ...]]:
        """What a tuner may vary: setting -> its choices, the default first. Imports nothing."""
        ...

    def load(self, model: Model, settings: Mapping[str, Any]) -> Session:
        """A session for an ONNX model; settings not given keep the library's own default.

        `model` is serialised; a path (whose weights may lie in files beside it) for models of 2 GB and more.

        Raises `ConfigError` for a setting that is unknown or refused (named in the message),
        `ModelError` for a model that cannot be loaded, `EnvironmentProblem` without the library.
        """
        ...


@dataclass(frozen=True)
class Target:
    """Where a model will serve: runtime, threads, samples per inference, and settings on top of its defaults.

    Whoever makes the feeds makes them with `batch` samples; latencies are per inference of one batch.
    """

    runtime: str = "onnxruntime"
    threads: int = 1
    batch: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in (("threads", self.threads), ("batch", self.batch)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"target: {name} is {value!r}; expected a whole number of at least 1")

    def served(self, serving: Mapping[str, Any]) -> Target:
        """The same target with other `threads`, another `batch`, other settings of the runtime, by name."""
        others = {name: value for name, value in serving.items() if name not in ("threads", "batch")}
        return Target(
            self.runtime,
            serving.get("threads", self.threads),
            serving.get("batch", self.batch),
            {**self.settings, **others},
        )

    def to_json(self) -> dict[str, Any]:
        """The inverse of `from_json`."""
        return {
            "runtime": self.runtime,
            "threads": self.threads,
            "batch": self.batch,
            "settings": dict(self.settings),
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Target:
        """Raises `ConfigError` for an unknown key or a wrong number."""
        unknown = set(body) - {"runtime", "threads", "batch", "settings"}
        if unknown:
            raise ConfigError(
                f"target: unknown key {sorted(unknown)[0]!r}; allowed: runtime, threads, batch, settings"
            )
        return cls(**body)


def check_threads(setting: str, value: int) -> None:
    """Raises `ConfigError` for more threads than this machine has cores: they would only get in each other's way."""
    cores = os.cpu_count() or 1
    if value > cores:
        raise ConfigError(
            f"setting {setting!r} is {value}; this machine has {cores} cores, give at most that"
        )


def all_finite(array: Array) -> bool:
    """Whether a floating array has neither NaN nor infinity; True for other dtypes."""
    return bool(np.isfinite(array).all()) if array.dtype.kind in "fc" else True
