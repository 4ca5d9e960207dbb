"""A bundle: one folder that another machine can run, judge and check.

    model.onnx     the sub-network (and model.onnx.data, should it be over 2 GB)
    runtime.json   runtime, threads, batch, settings, environment it was measured with
    run.py         runs the model; needs only the runtime and numpy
    samples.npz    sample inputs (`in:NAME`) and the outputs they gave (`out:NAME`)
    metrics.json   quality, latency with intervals, cost; those of the baseline too
    card.md        the same for people, with what was changed
    manifest.json  SHA-256 and size of every other file

The folder appears whole or not at all: it is written under a temporary name beside its place and renamed.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxnas.errors import RunError
from onnxnas.handoff.card import CardInfo, render
from onnxnas.handoff.runner import save_arrays
from onnxnas.handoff.verify import VerifyReport, sha256, verify

if TYPE_CHECKING:
    import onnx

__all__ = ["CardInfo", "Samples", "VerifyReport", "verify", "write"]

SCHEMA = 1


@dataclass(frozen=True, eq=False)
class Samples:
    """Inputs by name, and the outputs, by name in graph order, that they gave where the bundle was made."""

    inputs: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    outputs: Mapping[str, NDArray[Any]] = field(default_factory=dict)


def write(
    directory: str | Path,
    model: bytes | onnx.ModelProto,
    *,
    runtime_settings: Mapping[str, Any],
    metrics: Mapping[str, Any],
    card: CardInfo,
    samples: Samples | None = None,
) -> Path:
    """Write the bundle `directory`, replacing an earlier bundle of that name, and return it.

    `runtime_settings` has `runtime` ('onnxruntime' or 'openvino') and any of `threads`, `batch`, `version`,
    `settings` (the runtime's own names), `environment` (variables). `metrics` is plain JSON: `quality`,
    `latency_ms` {p50, lo, hi}, `speedup` {value, lo, hi}, `macs`, `params`, `bytes`, `baseline` {...};
    what is absent is left out of the card. Raises RunError if `directory` is there and is no bundle.
    """
    place = Path(directory)
    if place.exists() and not (place / "manifest.json").is_file() and any(place.iterdir()):
        raise RunError(
            f"{place}: exists and is not a bundle (no manifest.json); give another name or remove it"
        )
    place.parent.mkdir(parents=True, exist_ok=True)
    build = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
    try:
        _fill(build, model, runtime_settings, metrics, card, samples or Samples())
        build.chmod(0o755)
        if place.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{place.name}.old.", dir=place.parent))
            os.rename(place, old / place.name)
            os.rename(build, place)
            shutil.rmtree(old)
        else:
            os.rename(build, place)
    except BaseException:
        shutil.rmtree(build, ignore_errors=True)
        raise
    return place


def _fill(
    build: Path,
    model: bytes | onnx.ModelProto,
    runtime_settings: Mapping[str, Any],
    metrics: Mapping[str, Any],
    card: CardInfo,
    samples: Samples,
) -> None:
    if isinstance(model, bytes | bytearray | memoryview):
        (build / "model.onnx").write_bytes(model)
    else:
        from onnxnas.graph import save

        save(model, build / "model.onnx")
    runtime = {"schema": SCHEMA, **_resolved(runtime_settings)}
    if samples.outputs:
        runtime["outputs"] = list(samples.outputs)
    _json(build / "runtime.json", runtime)
    _json(build / "metrics.json", {"schema": SCHEMA, "model_sha256": card.source_sha256, **metrics})
    shutil.copyfile(Path(__file__).with_name("runner.py"), build / "run.py")
    (build / "run.py").chmod(0o755)
    if samples.inputs:
        arrays = {f"in:{name}": value for name, value in samples.inputs.items()}
        arrays.update({f"out:{name}": value for name, value in samples.outputs.items()})
        save_arrays(build / "samples.npz", arrays)
    (build / "card.md").write_text(render(card, metrics, runtime), encoding="utf-8")
    files = {
        path.relative_to(build).as_posix(): {"sha256": sha256(path), "bytes": path.stat().st_size}
        for path in sorted(build.rglob("*"))
        if path.is_file()
    }
    _json(build / "manifest.json", {"schema": SCHEMA, "source_sha256": card.source_sha256, "files": files})
    for path in build.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())


def _resolved(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with the runtime's defaults and version filled in, so that run.py needs no other source."""
    from onnxnas.measure import Target, get_runtime, resolve_settings

    name, threads, batch = str(given["runtime"]), int(given.get("threads") or 1), int(given.get("batch") or 1)
    settings = resolve_settings(Target(name, threads, batch, given.get("settings") or {}))
    version = given.get("version") or get_runtime(name).version()
    return {**given, "version": version, "threads": threads, "batch": batch, "settings": settings}


def _json(path: Path, body: Any) -> None:
    path.write_text(json.dumps(_plain(body), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    """Numpy values and our own types as JSON; what is not finite becomes null."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    elif hasattr(value, "to_json"):
        value = value.to_json()
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
