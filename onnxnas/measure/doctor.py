"""Is this machine fit to measure on? Findings with what to do about each."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from onnxnas.errors import OnnxnasError
from onnxnas.measure.cores import available_cores, memory_available
from onnxnas.measure.environment import environment
from onnxnas.measure.measurer import Measurer
from onnxnas.measure.protocol import Protocol
from onnxnas.measure.registry import runtime_names
from onnxnas.measure.runtime import Target
from onnxnas.measure.tiny import MATMULS, matmuls_feeds

Level = Literal["ok", "warn", "fail"]
_GIB = 1 << 30
_NOISE_WARN = 0.05


@dataclass(frozen=True)
class Finding:
    """One check: what was looked at, how it is, and what to do unless it is ok."""

    check: str
    status: Level
    detail: str
    advice: str = ""


def doctor(
    *,
    runtimes: Sequence[str] = (),
    directory: str | Path = ".",
    threads: int = 1,
    protocol: Protocol | str = "short",
    clock: Callable[[], int] = time.perf_counter_ns,
) -> dict[str, Any]:
    """Look at versions, CPU, timer, memory, disk and load, and measure a tiny model against itself.

    Returns `{"schema", "ok", "findings": [{"check","status","detail","advice"}], "environment"}`; `ok`
    is False when a finding is 'fail'. `directory` is where runs will be written. Takes a few seconds.
    """
    surroundings = environment()
    findings = [
        *_packages(surroundings["packages"]),
        *_cpu(surroundings["cpu"]),
        _timer(clock),
        *_room(Path(directory)),
        _load(),
        *(_noise(name, threads, protocol) for name in (runtimes or runtime_names())),
    ]
    return {
        "schema": 1,
        "ok": all(finding.status != "fail" for finding in findings),
        "findings": [asdict(finding) for finding in findings],
        "environment": surroundings,
    }


def _packages(versions: Mapping[str, str | None]) -> Iterator[Finding]:
    needed = {"onnx": "fail", "onnxruntime": "fail", "numpy": "fail", "openvino": "warn", "torch": "warn"}
    uses = {"openvino": "the openvino runtime", "torch": "training"}
    for name, level in needed.items():
        version = versions[name]
        if version:
            yield Finding(f"package {name}", "ok", version)
        else:
            what = uses.get(name, "everything")
            status: Level = "fail" if level == "fail" else "warn"
            yield Finding(f"package {name}", status, f"not installed; {what} needs it", f"pip install {name}")


def _cpu(cpu: Mapping[str, Any]) -> Iterator[Finding]:
    features = cpu["features"]
    said = ", ".join(features) or "none of those asked about"
    if {"avx2", "neon"} & set(features):
        yield Finding("cpu features", "ok", f"{cpu['model']}: {said}")
    else:
        yield Finding(
            "cpu features", "warn", f"{cpu['model']}: {said}", "runtimes fall back to slow kernels here"
        )
    if {"avx512_vnni", "avx_vnni", "amx_int8", "dotprod"} & set(features):
        yield Finding("int8 instructions", "ok", said)
    else:
        yield Finding("int8 instructions", "warn", "none", "int8 models are seldom faster on this CPU")
    quota = cpu["quota"]
    if quota is not None and quota < cpu["available_cores"]:
        yield Finding(
            "cpu quota",
            "warn",
            f"the container has {quota:g} CPUs' time on {cpu['available_cores']} cores",
            f"use at most {max(1, int(quota))} threads, or pin the container to cores instead",
        )
    mode = cpu["governor"]
    if mode is None:
        yield Finding("frequency governor", "ok", "not readable (usual in virtual machines)")
    elif mode == "performance":
        yield Finding("frequency governor", "ok", mode)
    else:
        yield Finding("frequency governor", "warn", mode, "set it to 'performance' for steadier measurements")


def _timer(clock: Callable[[], int]) -> Finding:
    steps = []
    for _ in range(200):
        start = now = clock()
        while now == start:
            now = clock()
        steps.append(now - start)
    step = float(np.median(steps))
    if step <= 1000:
        return Finding("timer", "ok", f"resolution {step:.0f} ns")
    return Finding(
        "timer",
        "warn",
        f"resolution {step:.0f} ns",
        "short inferences are timed in groups; prefer larger batches",
    )


def _room(directory: Path) -> Iterator[Finding]:
    free = memory_available()
    detail = f"{free / _GIB:.1f} GiB available"
    if free < 2 * _GIB:
        yield Finding(
            "memory", "warn", detail, "close other programs: training a super-network needs several GiB"
        )
    else:
        yield Finding("memory", "ok", detail)
    if not directory.is_dir():
        yield Finding("disk", "fail", f"{directory} is not a directory", "give an existing directory")
        return
    space = shutil.disk_usage(directory).free
    detail = f"{space / _GIB:.1f} GiB free in {directory}"
    if not os.access(directory, os.W_OK):
        yield Finding("disk", "fail", f"{directory} is not writable", "give a directory you may write to")
    elif space < _GIB:
        yield Finding("disk", "warn", detail, "a run writes checkpoints and models: free some space")
    else:
        yield Finding("disk", "ok", detail)


def _load() -> Finding:
    load, cores = os.getloadavg()[0], len(available_cores())
    detail = f"load average {load:.2f} on {cores} cores"
    if load > 0.5 * cores:
        return Finding(
            "other load",
            "warn",
            detail,
            "other programs run: measurements take longer and intervals are wider",
        )
    return Finding("other load", "ok", detail)


def _noise(runtime: str, threads: int, protocol: Protocol | str) -> Finding:
    """The A/A test: a tiny model against itself must not come out different."""
    check = f"noise ({runtime})"
    try:
        with Measurer(Target(runtime, threads), MATMULS, matmuls_feeds(), timeout=60) as measurer:
            latency = measurer.measure(MATMULS, protocol=protocol)
            version = measurer.version
    except OnnxnasError as error:
        status: Level = "fail" if runtime == "onnxruntime" else "warn"
        return Finding(check, status, str(error), f"pip install {runtime}, or use another runtime")
    if latency.speedup is None:
        return Finding(check, "fail", f"{latency.status}: {latency.error}", "reinstall the runtime")
    ratio = latency.speedup
    detail = (
        f"{runtime} {version}: a model against itself {ratio.value:.3f}x"
        f" [{ratio.low:.3f}, {ratio.high:.3f}], noise floor {100 * latency.noise_floor:.1f} %"
    )
    if not ratio.low <= 1.0 <= ratio.high:
        return Finding(check, "warn", detail, "the same model looks different: repeat on a quiet machine")
    if latency.noise_floor > _NOISE_WARN:
        return Finding(
            check, "warn", detail, "differences below the noise floor cannot be seen; quieten the machine"
        )
    return Finding(check, "ok", detail)
