"""trials.csv: columns, exact figures, nothing half-written."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from onnxnas.errors import RunError
from onnxnas.search import SearchSettings, read_trials_csv, run, write_trials_csv
from onnxnas.types import Cost, Measurement, Objective, Subnet, Trial
from tests.search.search_fakes import NETWORK, FakeSpace, NetworkEvaluator

SPACE = FakeSpace(blocks=3, free=2, steps=4)


def test_columns_and_cells(tmp_path: Path) -> None:
    trials = [
        Trial(
            0,
            Subnet(frozenset({"b1"}), {"g0": 2}, {"k0": (3, 3)}, serving={"threads": 2}),
            "ok",
            {"quality": 91.25, "latency": 0.1 + 0.2},
            {"latency": Measurement(0.3, 0.25, 0.35, 9, "ms")},
            1.5,
        ),
        Trial(1, Subnet(), "crashed", {}, error='signal 11, "x"\nline 2'),
    ]
    path = write_trials_csv(tmp_path / "trials.csv", trials, NETWORK, SPACE.cost)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "number", "status", "seconds", "error", "quality", "latency", "quality_lo", "quality_hi",
        "latency_lo", "latency_hi", "macs", "params", "skip", "width", "kernel", "precision",
        "serving",
    ]  # fmt: skip
    assert rows[0] == {
        "number": "0", "status": "ok", "seconds": "1.5", "error": "", "quality": "91.25",
        "latency": "0.30000000000000004", "quality_lo": "", "quality_hi": "", "latency_lo": "0.25",
        "latency_hi": "0.35", "macs": "1800", "params": "18", "skip": '["b1"]', "width": '{"g0": 2}',
        "kernel": '{"k0": [3, 3]}', "precision": "{}", "serving": '{"threads": 2}',
    }  # fmt: skip
    assert rows[1]["error"] == 'signal 11, "x"\nline 2'
    assert rows[1]["quality"] == ""
    assert rows[1]["macs"] == "2000"
    read, _ = read_trials_csv(path, NETWORK)
    assert read.subnet == trials[0].subnet
    # a table of before there was serving
    old = (
        path.read_text().replace(",serving", "").replace(',"{""threads"": 2}"', "").replace("{},{}\n", "{}\n")
    )
    path.write_text(old)
    read, _ = read_trials_csv(path, NETWORK)
    assert read.subnet == trials[0].subnet.structure


def test_round_trip(tmp_path: Path) -> None:
    trials = run(
        SPACE, NetworkEvaluator(SPACE, {3: "oom"}), NETWORK, SearchSettings(max_trials=6), "sqlite://", 1
    )
    path = write_trials_csv(tmp_path / "trials.csv", trials, NETWORK, SPACE.cost)
    back = read_trials_csv(path, NETWORK)
    for a, b in zip(trials, back, strict=True):
        assert (a.number, a.subnet, a.status, a.values, a.seconds, a.error) == (
            b.number, b.subnet, b.status, b.values, b.seconds, b.error,
        )  # fmt: skip
        for name, m in a.measurements.items():
            assert (m.low, m.high, m.unit) == (
                b.measurements[name].low, b.measurements[name].high, b.measurements[name].unit,
            )  # fmt: skip


def test_an_objective_named_like_a_cost_is_one_column(tmp_path: Path) -> None:
    macs = Objective("macs", "", maximise=False)
    trial = Trial(0, Subnet(), "ok", {"macs": 7.0})
    path = write_trials_csv(tmp_path / "t.csv", [trial], [macs], SPACE.cost)
    header, row = path.read_text().splitlines()
    assert header.split(",").count("macs") == 1
    assert dict(zip(header.split(","), row.split(","), strict=False))["macs"] == "7.0"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = write_trials_csv(tmp_path / "t.csv", [], NETWORK, SPACE.cost)
    before = path.read_bytes()

    def broken(subnet: Subnet) -> Cost:
        raise RuntimeError("no cost")

    with pytest.raises(RuntimeError, match="no cost"):
        write_trials_csv(path, [Trial(0, Subnet(), "oom", {})], NETWORK, broken)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["t.csv"]


@pytest.mark.parametrize(("old", "new"), [(",ok,", ",fine,"), ("91.5", "x"), ("number,", "nummer,")])
def test_a_damaged_table_says_where(tmp_path: Path, old: str, new: str) -> None:
    trial = Trial(0, Subnet(), "ok", {"quality": 91.5, "latency": 1.0})
    path = write_trials_csv(tmp_path / "t.csv", [trial], NETWORK, SPACE.cost)
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(RunError, match=r"t\.csv line 2"):
        read_trials_csv(path, NETWORK)
