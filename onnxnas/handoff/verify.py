"""Is a bundle what it was when it left, and does it give the same numbers here?

1. Files: every file of the manifest is there with its SHA-256; nothing else is there. A manifest cannot name
   anything outside the bundle, and links are refused.
2. Numbers: the model, run in a child process on the stored sample inputs, gives the stored outputs:
   max |a - b| / max |b| <= TOLERANCE for every output (TOLERANCE_8_BITS where numbers have 8 bits). Nothing else
   of the bundle is executed.
3. Latency is measured again and shown beside the recorded one. Another host may well be slower: that is
   information, never a failure.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxnas.errors import OnnxnasError, RunError

TOLERANCE = 1e-3  # float32 on two instruction sets; measured differences are near 1e-6
TOLERANCE_8_BITS = 0.05  # one rounding the other way is a step of 255; 0.02 between two ways of one runtime


@dataclass(frozen=True)
class VerifyReport:
    """`numbers` and `latency` are None where they could not be made; `notes` say why."""

    bundle: str
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    numbers: Mapping[str, Any] | None = None
    latency: Mapping[str, Any] | None = None
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def ok(self) -> bool:
        """Every check that was made held."""
        return not (self.missing or self.extra or self.changed or self.problems)

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": 1,
            "bundle": self.bundle,
            "ok": self.ok,
            "files": {
                "missing": list(self.missing),
                "extra": list(self.extra),
                "changed": list(self.changed),
            },
            "numbers": self.numbers,
            "latency_ms": self.latency,
            "problems": list(self.problems),
            "notes": list(self.notes),
        }


def verify(directory: str | Path, *, numbers: bool = True, latency: bool = True) -> VerifyReport:
    """Check the bundle `directory`; `numbers` and `latency` run its model. RunError if it is no bundle."""
    place = Path(directory)
    manifest = read_manifest(place)
    missing, changed, problems = [], [], []
    for name, facts in manifest.items():
        path = place / name
        if path.is_symlink() or (path.exists() and not stat.S_ISREG(path.stat().st_mode)):
            problems.append(f"{name}: is no regular file")
        elif not path.exists():
            missing.append(name)
        elif sha256(path) != facts.get("sha256"):
            changed.append(name)
    here = {p.relative_to(place).as_posix() for p in place.rglob("*") if p.is_symlink() or not p.is_dir()}
    extra = sorted(
        name for name in here - manifest.keys() - {"manifest.json"} if "__pycache__" not in name.split("/")
    )
    files = VerifyReport(str(place), tuple(missing), tuple(extra), tuple(changed), problems=tuple(problems))
    damaged = [name for name in (*missing, *changed) if name != "card.md"]
    if damaged or problems:
        return replace(files, notes=("numbers not checked: files are missing or changed",))
    if not numbers:
        return files
    found, timed, more, notes = _rerun(place, latency)
    return replace(files, numbers=found, latency=timed, problems=tuple(more), notes=tuple(notes))


def read_manifest(place: Path) -> dict[str, dict[str, Any]]:
    """File names and facts of a bundle's manifest. RunError if it is absent, damaged or points outside."""
    file = place / "manifest.json"
    if not file.is_file():
        raise RunError(f"{place}: no manifest.json in it; expected a bundle such as RUN/pareto/rank_01")
    try:
        body = json.loads(file.read_text(encoding="utf-8"))
        files: dict[str, dict[str, Any]] = {str(name): dict(facts) for name, facts in body["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(
            f"{file}: damaged ({error!r:.80}); expected JSON with 'files'; fetch it again"
        ) from None
    for name in files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or not path.parts:
            raise RunError(f"{file}: names {name!r}, which is outside the bundle; do not use it")
    for name in ("model.onnx", "runtime.json"):
        if name not in files:
            raise RunError(f"{file}: does not list {name}; expected a complete bundle; fetch it again")
    return files


def sha256(path: Path) -> str:
    """The file's SHA-256 in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def compare(
    got: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]], tolerance: float = TOLERANCE
) -> dict[str, Any]:
    """The worst max |a - b| / max |b| over outputs; another shape or a NaN counts as infinite (null)."""
    worst, culprit = 0.0, ""
    for name, reference in expected.items():
        value = got.get(name)
        if value is None or value.shape != reference.shape:
            difference = float("inf")
        elif reference.size == 0:
            difference = 0.0
        else:
            scale = max(float(np.abs(reference.astype(np.float64)).max()), 1e-30)
            gap = np.abs(value.astype(np.float64) - reference.astype(np.float64)).max()
            difference = float(gap / scale) if np.isfinite(gap) else float("inf")
        if difference > worst or not culprit:
            worst, culprit = difference, name
    finite = bool(np.isfinite(worst))
    return {
        "max_rel": worst if finite else None,
        "tolerance": tolerance,
        "output": culprit,
        "ok": finite and worst <= tolerance,
    }


def _rerun(
    place: Path, latency: bool
) -> tuple[dict[str, Any] | None, dict[str, Any] | None, list[str], list[str]]:
    """(numbers, latency, problems, notes)."""
    from onnxnas.handoff.runner import samples
    from onnxnas.measure import Measurer, Target, get_runtime

    inputs, expected = samples(place)
    if not inputs:
        return None, None, [], ["numbers not checked: the bundle has no sample inputs"]
    if any(place.glob("model.onnx?*")):
        return None, None, [], ["numbers not checked: the weights are in external files; use run.py"]
    runtime = json.loads((place / "runtime.json").read_text(encoding="utf-8"))
    model = (place / "model.onnx").read_bytes()
    problems: list[str] = []
    notes: list[str] = []
    found: dict[str, Any] | None = None
    timed: dict[str, Any] | None = None
    try:
        batch, threads = int(runtime.get("batch") or 1), int(runtime.get("threads") or 1)
        cores = len(os.sched_getaffinity(0))
        if threads > cores:
            notes.append(f"measured with {threads} threads; {cores} cores are free here, so with {cores}")
        defaults = get_runtime(str(runtime["runtime"])).defaults(
            threads
        )  # they depend on the number of threads
        own = {
            k: v for k, v in (runtime.get("settings") or {}).items() if k not in defaults or defaults[k] != v
        }
        target = Target(str(runtime["runtime"]), min(threads, cores), batch, own)
        with Measurer(target, model, with_batch(inputs, batch)) as measurer:
            if expected:
                outputs = dict(zip(expected, measurer.run(model, inputs), strict=False))
                found = compare(outputs, expected, _tolerance(place))
                if not found["ok"]:
                    problems.append(
                        f"output {found['output']!r}: got values that differ from the stored ones by "
                        f"{found['max_rel']} of their maximum, expected at most {found['tolerance']}"
                    )
            if latency:
                result = measurer.measure(model, protocol="short")
                timed = {"recorded": _recorded(place), "status": result.status}
                if result.p50 is not None:
                    timed |= {"p50": result.p50.value, "lo": result.p50.low, "hi": result.p50.high}
                else:
                    problems.append(f"model.onnx: {result.status} when timed: {result.error}")
    except (OnnxnasError, KeyError, TypeError, ValueError) as error:
        problems.append(f"model.onnx: does not run here: {error}")
    return found, timed, problems, notes


def with_batch(inputs: Mapping[str, NDArray[Any]], batch: int) -> dict[str, NDArray[Any]]:
    """`inputs` cut or repeated along their common first axis to `batch` samples."""
    n = next((value.shape[0] for value in inputs.values() if value.ndim), 0)
    if n == 0 or n == batch:
        return dict(inputs)
    take = np.arange(batch) % n
    return {k: v[take] if v.ndim and v.shape[0] == n else v for k, v in inputs.items()}


def _tolerance(place: Path) -> float:
    """How far outputs may be from the stored ones, by what numbers the network has."""
    return TOLERANCE_8_BITS if _metric(place, "subnet", "precision") else TOLERANCE


def _recorded(place: Path) -> Any:
    return _metric(place, "latency_ms", "p50")


def _metric(place: Path, name: str, part: str) -> Any:
    """A part of what metrics.json has under a name; None when it has no such thing."""
    file = place / "metrics.json"
    if not file.is_file():
        return None
    try:
        return (json.loads(file.read_text(encoding="utf-8")).get(name) or {}).get(part)
    except (ValueError, AttributeError):
        return None
