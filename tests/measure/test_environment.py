from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

from onnxnas.measure import Protocol, doctor, environment
from onnxnas.measure import cores as cores_module
from onnxnas.measure import environment as public
from onnxnas.measure.cores import available_cores, memory_available, memory_total, ranked_cores
from onnxnas.measure.doctor import _timer

module = sys.modules[public.__module__]


def test_environment_says_what_is_here() -> None:
    body = environment()
    assert body["python"] == platform.python_version()
    assert body["packages"]["numpy"] == numpy.__version__
    assert body["cpu"]["available_cores"] == len(os.sched_getaffinity(0))
    assert 0 < memory_available() <= memory_total() == body["memory"]["total"]
    digest = body.pop("digest")
    assert digest == hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    assert digest == environment()["digest"]


def test_digest_follows_what_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    before = environment()["digest"]
    monkeypatch.setattr(platform, "release", lambda: "0.0-other")
    assert environment()["digest"] != before


CPUINFO = """processor : 0
model name : Some CPU @ 2 GHz
flags : fpu avx2 avx512f avx512_vnni amx_int8 amx_tile
physical id : 0
core id : 0

processor : 1
model name : Some CPU @ 2 GHz
physical id : 0
core id : 0
"""


def test_cpu_features_come_from_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"/proc/cpuinfo": CPUINFO}
    monkeypatch.setattr(module, "_read", lambda path: texts.get(str(path), ""))
    cpu = environment()["cpu"]
    assert cpu["model"] == "Some CPU @ 2 GHz"
    assert cpu["features"] == ["amx_int8", "avx2", "avx512_vnni", "avx512f"]
    assert cpu["physical_cores"] == 1
    assert cpu["governor"] is None
    assert cpu["quota"] is None


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ({"/sys/fs/cgroup/cpu.max": "150000 100000"}, 1.5),
        ({"/sys/fs/cgroup/cpu.max": "max 100000"}, None),
        ({"/proc/self/cgroup": "0::/a/b", "/sys/fs/cgroup/a/b/cpu.max": "50000 100000"}, 0.5),
        (
            {"/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"},
            None,
        ),
        (
            {
                "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000",
                "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            2.0,
        ),
    ],
)
def test_cpu_quota_of_containers(
    monkeypatch: pytest.MonkeyPatch, texts: dict[str, str], expected: float | None
) -> None:
    monkeypatch.setattr(module, "_read", lambda path: texts.get(str(path), ""))
    assert module.cpu_quota() == expected


@pytest.mark.parametrize(
    ("siblings", "count", "expected"),
    [
        ({0: "0,2", 1: "1,3", 2: "0,2", 3: "1,3"}, 1, (1,)),
        ({0: "0,2", 1: "1,3", 2: "0,2", 3: "1,3"}, 2, (0, 1)),
        ({0: "0,2", 1: "1,3", 2: "0,2", 3: "1,3"}, 3, (0, 1, 3)),
        ({0: "0-1", 1: "0-1", 2: "2-3", 3: "2-3"}, 2, (0, 2)),
        ({4: "", 5: "", 7: ""}, 2, (5, 7)),
    ],
)
def test_cores_are_physical_ones_first(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    siblings: dict[int, str],
    count: int,
    expected: tuple[int, ...],
) -> None:
    monkeypatch.setattr(cores_module, "available_cores", lambda: tuple(sorted(siblings)))
    for core, text in siblings.items():
        folder = tmp_path / f"cpu{core}" / "topology"
        folder.mkdir(parents=True)
        if text:
            (folder / "thread_siblings_list").write_text(text + "\n")
    ranked = ranked_cores(tmp_path)
    assert sorted(ranked[:count]) == list(expected)
    assert sorted(ranked) == sorted(siblings)


def test_memory_limit_of_a_container(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    monkeypatch.setattr(cores_module, "_CGROUP", tmp_path)
    assert cores_module.memory_limit_of_container() is None
    (tmp_path / "memory.max").write_text("1048576\n")
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("1048576\n")
    assert cores_module.memory_limit_of_container() == 1048576
    assert memory_total() == 1048576
    assert memory_available() == 1048576


def test_no_library_is_imported(root: Path) -> None:
    code = (
        "import sys; from onnxnas.measure import environment; environment();"
        "print([m for m in ('torch', 'onnxruntime', 'openvino', 'onnx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def test_doctor_reports_findings(tmp_path: Path) -> None:
    quick = Protocol("quick", 0.02, min_turns=6, block_seconds=0.001, warmup_seconds=0.002)
    names = ("onnxruntime", "tests.measure.fakes:Missing")
    body = json.loads(json.dumps(doctor(runtimes=names, directory=tmp_path, protocol=quick)))
    findings = {finding["check"]: finding for finding in body["findings"]}
    assert findings["package onnxruntime"]["status"] == "ok"
    assert findings["disk"]["status"] in ("ok", "warn")
    assert "against itself" in findings["noise (onnxruntime)"]["detail"]
    missing = findings["noise (tests.measure.fakes:Missing)"]
    assert missing["status"] == "warn"
    assert "not installed" in missing["detail"]
    assert all(finding["advice"] for finding in body["findings"] if finding["status"] != "ok")
    assert body["ok"] is True
    assert body["environment"]["digest"] == environment()["digest"]
    assert available_cores()


def test_doctor_fails_where_nothing_can_be_written(tmp_path: Path) -> None:
    body = doctor(runtimes=("tests.measure.fakes:Missing",), directory=tmp_path / "none")
    (disk,) = [finding for finding in body["findings"] if finding["check"] == "disk"]
    assert disk["status"] == "fail"
    assert body["ok"] is False


@pytest.mark.parametrize(("step", "status"), [(50, "ok"), (15_000_000, "warn")])
def test_timer_resolution(step: int, status: str) -> None:
    ticks = iter(range(10**6))
    assert _timer(lambda: next(ticks) // 3 * step).status == status
