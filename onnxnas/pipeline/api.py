"""The Python interface: `onnxnas.optimize`, `onnxnas.inspect`, `onnxnas.extract`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

    `output` is the run directory (default: a new one under the system's temporary directory). `constraints` are
    "max_drop", in the unit of the quality metric, and limits of objectives by their names. `settings` are further
    configuration keys: preset, time_budget, threads, batch, elastic, seed, train={...}, search={...},
    finalise={...}, ...

    Raises as `onnxnas.pipeline.runner.begin`.
    """
    from onnxnas.pipeline import config, runner
    from onnxnas.pipeline.results import Result

    limits = dict(constraints or {})
    drop = {"max_drop": limits.pop("max_drop")} if "max_drop" in limits else {}
    is_path = isinstance(model, (str, Path))
    directory = Path(output) if output is not None else Path(tempfile.mkdtemp(prefix="onnxnas-"))
    flags = {
        "model": str(model) if is_path else "<ModelProto>",
        "data": str(data),
        "output": str(directory),
        "objectives": list(objectives),
        "runtime": runtime,
        **drop,
        "limits": limits,
        **settings,
    }
    body = runner.begin(config.resolve(flags), reporter, model=None if is_path else model)  # type: ignore[arg-type]
    return Result(directory, body)
