"""The Python interface: `onnxnas.optimize`, `onnxnas.inspect`, `onnxnas.extract`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxnas.errors import ConfigError
from onnxnas.pipeline.extract import extract
from onnxnas.pipeline.inspect import inspect

if TYPE_CHECKING:
    from onnx import ModelProto

    from onnxnas.pipeline.events import Reporter
    from onnxnas.pipeline.results import Result

__all__ = ["extract", "inspect", "optimize"]


def optimize(
    model: str | Path | ModelProto,
    data: str | Path,
    *,
    output: str | Path | None = None,
    objectives: Sequence[str] = ("latency", "macs"),
    constraints: Mapping[str, float] | None = None,
    runtime: str = "onnxruntime",
    reporter: Reporter | None = None,
    **settings: Any,
) -> Result:
    """The whole line: train, search, finalise, bundle, report.

    `output` is the run directory (default: a new one under the system's temporary directory). `constraints` knows
    "max_drop", in the unit of the quality metric. `settings` are further configuration keys: preset, time_budget,
    threads, batch, elastic, seed, train={...}, search={...}, finalise={...}, ...

    Raises as `onnxnas.pipeline.runner.begin`.
    """
    from onnxnas.pipeline import config, runner
    from onnxnas.pipeline.results import Result

    unknown = sorted((constraints or {}).keys() - {"max_drop"})
    if unknown:
        raise ConfigError(f"constraints: unknown '{unknown[0]}'; expected max_drop")
    is_path = isinstance(model, (str, Path))
    directory = Path(output) if output is not None else Path(tempfile.mkdtemp(prefix="onnxnas-"))
    flags = {
        "model": str(model) if is_path else "<ModelProto>",
        "data": str(data),
        "output": str(directory),
        "objectives": list(objectives),
        "runtime": runtime,
        **(constraints or {}),
        **settings,
    }
    body = runner.begin(config.resolve(flags), reporter, model=None if is_path else model)  # type: ignore[arg-type]
    return Result(directory, body)
