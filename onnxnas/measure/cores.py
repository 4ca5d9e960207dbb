"""The cores and the memory that this process may use, container limits included."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_NO_LIMIT = 1 << 60


def available_cores() -> tuple[int, ...]:
    """The logical cores this process may run on."""
    return tuple(sorted(os.sched_getaffinity(0)))


def ranked_cores(topology: Path = Path("/sys/devices/system/cpu")) -> tuple[int, ...]:
    """The available cores, best to time on first: one per physical core first, the last ones first.

    Two threads on the siblings of one physical core slow each other down; core 0 serves interrupts.
    """
    siblings: dict[str, list[int]] = {}
    for core in available_cores():
        file = topology / f"cpu{core}" / "topology" / "thread_siblings_list"
        key = file.read_text().strip() if file.is_file() else str(core)
        siblings.setdefault(key, []).append(core)
    ranked = sorted((place, -core) for group in siblings.values() for place, core in enumerate(group))
    return tuple(-core for _, core in ranked)


def memory_limit_of_container() -> int | None:
    """Bytes that the control group of this process may use, or None without such a limit."""
    limits = [_NO_LIMIT]
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            roots, name = [_CGROUP], "memory.max"
        elif "memory" in controllers.split(","):
            roots, name = [_CGROUP / "memory"], "memory.limit_in_bytes"
        else:
            continue
        for root in roots:
            for folder in (root / path.lstrip("/"), root):
                text = _text(folder / name)
                if text.isdigit():
                    limits.append(int(text))
    return min(limits) if min(limits) < _NO_LIMIT else None


def memory_total() -> int:
    """Bytes of memory of this machine, or of its container if that has less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(total, memory_limit_of_container() or total)


def memory_available() -> int:
    """Bytes that can be allocated now without swapping."""
    free = memory_total()
    for line in _text(Path("/proc/meminfo")).splitlines():
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
    return min(free, memory_total())


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
