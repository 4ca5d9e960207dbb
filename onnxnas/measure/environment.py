"""What a measurement depends on, as JSON: versions, CPU, memory, limits; and its digest."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxnas.measure.cores import available_cores, memory_limit_of_container, memory_total

_PACKAGES = ("onnxnas", "onnx", "onnxruntime", "openvino", "torch", "numpy")
# what is asked about -> the flag in /proc/cpuinfo (x86) or its Features line (Arm)
_FEATURES = {
    "avx2": "avx2",
    "avx512f": "avx512f",
    "avx512_vnni": "avx512_vnni",
    "avx_vnni": "avx_vnni",
    "avx512_bf16": "avx512_bf16",
    "amx_int8": "amx_int8",
    "amx_bf16": "amx_bf16",
    "neon": "asimd",
    "dotprod": "asimddp",
    "sve": "sve",
    "arm_bf16": "bf16",
    "i8mm": "i8mm",
}
_CPU = Path("/sys/devices/system/cpu")


def environment() -> dict[str, Any]:
    """The machine and the software, from metadata and files only: nothing is imported or run.

    Keys: `packages`, `python`, `os`, `kernel`, `cpu` (`model`, `features`, `cores`, `physical_cores`,
    `available_cores`, `governor`, `quota`), `memory` (`total`, `container_limit`, bytes), and `digest`:
    the SHA-256 of all the others. Measurements with equal digests are of the same environment.
    """
    body: dict[str, Any] = {
        "schema": 1,
        "packages": {name: _version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "os": _os_name(),
        "kernel": platform.release(),
        "cpu": _cpu(),
        "memory": {"total": memory_total(), "container_limit": memory_limit_of_container()},
    }
    text = json.dumps(body, sort_keys=True)
    return {**body, "digest": hashlib.sha256(text.encode()).hexdigest()}


def incomparable(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Why times measured in two environments say nothing about each other; empty when they can be compared.

    The processor and the versions of the runtimes count; memory, operating system and the cores that a process was
    given do not, since every time is told relative to a model measured beside it.
    """
    pairs = {
        f"processor {key}": (one["cpu"].get(key), other["cpu"].get(key)) for key in ("model", "features")
    }
    pairs |= {n: (one["packages"].get(n), other["packages"].get(n)) for n in ("onnxruntime", "openvino")}
    return [f"{what}: there {a}, here {b}" for what, (a, b) in pairs.items() if a != b]


def _cpu() -> dict[str, Any]:
    model, flags, physical = "", set[str](), set[tuple[str, str]]()
    package = ""
    for line in _read("/proc/cpuinfo").splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key in ("model name", "Model") and not model:
            model = value
        elif key in ("flags", "Features"):
            flags |= set(value.split())
        elif key == "physical id":
            package = value
        elif key == "core id":
            physical.add((package, value))
    cores = available_cores()
    return {
        "model": model or platform.processor() or platform.machine(),
        "architecture": platform.machine(),
        "features": sorted(name for name, flag in _FEATURES.items() if flag in flags),
        "cores": os.cpu_count(),
        "physical_cores": len(physical) or None,
        "available_cores": len(cores),
        "governor": governor(),
        "quota": cpu_quota(),
    }


def governor(core: int | None = None) -> str | None:
    """How the frequency is chosen ('performance', 'powersave' ...), or None where it cannot be read."""
    core = available_cores()[0] if core is None else core
    return _read(_CPU / f"cpu{core}" / "cpufreq" / "scaling_governor") or None


def cpu_quota() -> float | None:
    """CPUs' worth of time that the container may use, or None without such a limit."""
    base = Path("/sys/fs/cgroup")
    own = _read("/proc/self/cgroup").rpartition("::")[2].strip().lstrip("/")
    for file in (base / own / "cpu.max", base / "cpu.max"):
        quota, _, period = _read(file).partition(" ")
        if quota.isdigit() and period.isdigit():
            return int(quota) / int(period)
    quota, period = _read(base / "cpu/cpu.cfs_quota_us"), _read(base / "cpu/cpu.cfs_period_us")
    if quota.isdigit() and period.isdigit():
        return int(quota) / int(period)
    return None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return platform.system()


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
