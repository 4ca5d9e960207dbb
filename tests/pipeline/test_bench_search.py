"""The tables of docs/search.md, on a run of a few seconds."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from tools import bench_search

FEW = ["--seeds", "0", "--val-limit", "32", "--recalibration-images", "64"]


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    monkeypatch.setattr(sys, "argv", ["bench_search.py", *words, *FEW])
    bench_search.main()
    return capsys.readouterr().out


def test_fronts(run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What was measured once is looked up the next time; fronts are measured again, in a column of their own."""
    words = ["fronts", str(run), "--algorithms", "nsga2", "random", "--trials", "50", "--others", "6"]
    monkeypatch.setattr(bench_search, "MARKS", (4, 8))
    monkeypatch.setattr(bench_search, "LENGTHS", {"nsga2": 8, "random": 8})
    first = printed(capsys, monkeypatch, *words)
    kept = (run / "bench_search.jsonl").read_text()
    runs = (run / "bench_search_runs.jsonl").read_text()
    rows = [line for line in first.splitlines() if line.startswith(("| nsga2", "| random"))]
    assert [len(re.findall(r"\d\.\d{4} ± 0\.0000", row)) for row in rows] == [2, 1]
    with monkeypatch.context() as forgotten:
        forgotten.setattr(bench_search, "searched", None)  # nothing is searched twice
        again = printed(capsys, monkeypatch, *words, "--again")
    assert (run / "bench_search_runs.jsonl").read_text() == runs
    assert again.startswith(first)
    more = (run / "bench_search.jsonl").read_text().removeprefix(kept)
    assert "latency_ms onnxruntime 1 1 again" in more
    assert '"latency_ms onnxruntime 1 1"' not in more
    for row in again.splitlines()[-2:]:
        assert len(re.findall(r"\d\.\d{4} ± 0\.0000", row)) == 2


def test_overhead(run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is told adds up to the share that is told, and no sub-network is kept."""
    said = printed(capsys, monkeypatch, "overhead", str(run), "--held", "6", "--algorithm", "nsga2")
    parts = {name: int(ms) for name, ms in re.findall(r"\| ([a-z ]+) \| (\d+) \|", said)}
    assert parts.keys() == {
        *("statistics", "quality", "cut", "measure", "glance", "load", "think", "everything else"),
    }
    outside = sum(parts[name] for name in ("cut", "load", "think", "everything else"))
    (share,) = re.findall(r"timed runs: (\d+\.\d) %", said)
    assert float(share) == pytest.approx(100 * outside / sum(parts.values()), abs=2)
    kept = (run / "bench_search.jsonl").read_text().splitlines()
    assert {json.loads(row)["key"] for row in kept} == {""}  # the original
