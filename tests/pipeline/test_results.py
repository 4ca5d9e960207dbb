"""Who stays on the final front, and who is best."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from onnxnas.errors import CheckFailed, ConfigError
from onnxnas.pipeline import finalists, results
from onnxnas.pipeline.objectives import gain, objectives
from onnxnas.types import Measurement, Subnet, Trial


def member(number: int, quality: float, ms: float, speedup: tuple[float, float, float]) -> results.Member:
    low, value, high = speedup
    return results.Member(
        number,
        Subnet(skip=frozenset({f"b{number}"})),
        b"x" * number,
        quality,
        quality,
        macs=1000 - number,
        params=10,
        p50=Measurement(ms, ms * 0.9, ms * 1.1, 9, "ms"),
        speedup=Measurement(value, low, high, 9, "x"),
        throughput=Measurement(1000 / ms, 1, 2, 9, "samples/s"),
    )


WANTED = objectives(["latency"], "%")


def test_best_is_the_fastest_that_is_allowed() -> None:
    a, b, c = (
        member(1, 91.0, 3.0, (1.4, 1.5, 1.6)),
        member(2, 90.5, 2.0, (1.9, 2.0, 2.1)),
        member(3, 85, 1, (4, 5, 6)),
    )
    front, best = results.ranked([a, b, c], WANTED, floor=90.2)
    assert best is b
    assert [m.number for m in front] == [2, 1, 3]  # the best, then by quality


def test_best_of_several_objectives_gains_most_in_all_together() -> None:
    """1.5x in time and 1001/1000 in MACs, against 1.4x and twice as few."""
    both = objectives(["latency", "macs"], "%")
    a = member(1, 91.0, 3.0, (1.4, 1.5, 1.6))
    b = dataclasses.replace(member(2, 90.5, 3.2, (1.3, 1.4, 1.5)), macs=500)
    assert results.ranked([a, b], both, floor=90)[1] is b
    assert results.ranked([a, b], WANTED, floor=90)[1] is a
    assert gain(
        {"latency_ms": 2.0, "macs": 8.0}, {"latency_ms": 4.0, "macs": 64.0}, both[1:]
    ) == pytest.approx(4)


def test_not_surely_faster_is_not_best() -> None:
    a = member(1, 95.0, 3.0, (0.99, 1.2, 1.4))
    front, best = results.ranked([a], WANTED, floor=90)
    assert best is None
    assert front == [a]


def test_too_bad_is_not_best() -> None:
    assert results.ranked([member(1, 89.9, 3.0, (2, 3, 4))], WANTED, floor=90)[1] is None
    assert results.ranked([member(1, 90.0, 3.0, (2, 3, 4))], WANTED, floor=90)[1] is not None


def test_dominated_members_leave() -> None:
    a, b = member(1, 91.0, 3.0, (1.4, 1.5, 1.6)), member(2, 90.0, 3.5, (1.2, 1.3, 1.4))
    assert results.ranked([a, b], WANTED, floor=0)[0] == [a]


def test_members_are_compared_in_turns_with_the_baseline_not_by_the_clock() -> None:
    """The second one was measured in a quick minute: less time, but it gains less."""
    a, b = member(1, 91.0, 3.0, (1.4, 1.5, 1.6)), member(2, 90.5, 2.5, (1.1, 1.2, 1.3))
    assert results.ranked([a, b], WANTED, floor=0)[0] == [a]


def test_pareto_csv_reads_back() -> None:
    entry = member(1, 91.25, 3.0, (1.4, 1.5, 1.6)).to_json("pareto/rank_01")
    (row,) = csv.DictReader(io.StringIO(results.pareto_csv([entry])))
    assert list(row) == list(results.PARETO_COLUMNS)
    assert (row["rank"], row["bundle"], float(row["quality"])) == ("1", "pareto/rank_01", 91.25)
    assert (float(row["latency_ms_p50"]), float(row["speedup_lo"])) == (3.0, 1.4)
    assert Subnet.from_json(json.loads(row["subnet"])) == Subnet(skip=frozenset({"b1"}))


def trial(number: int, quality: float, ms: float, status: str = "ok") -> Trial:
    values = {"quality": quality, "latency_ms": ms}
    return Trial(number, Subnet(width={"g0": 8 + number}), status, values if status == "ok" else {})  # type: ignore[arg-type]


def test_finalists_spread_over_what_fine_tuning_can_save() -> None:
    trials = [trial(i, 90.0 - 4 * i, 10.0 - i) for i in range(8)] + [trial(9, 0, 0, "crashed")]
    chosen = finalists.choose(trials, WANTED, 3, least=80.9)
    assert sorted(t.number for t in chosen) == [0, 1, 2]
    assert len(finalists.choose(trials, WANTED, 2, -1.0)) == 2


def test_what_the_super_network_lost_as_a_whole_is_not_held_against_a_candidate() -> None:
    before = {"baseline_quality": 99.0, "maximal_quality": 90.0}
    assert finalists.floor(before, max_drop=1.0, recovery=0.1) == 90 - 1 - 9
    before = {"baseline_quality": 90.0, "maximal_quality": 92.0}
    assert finalists.floor(before, max_drop=1.0, recovery=0.1) == 90 - 1 - 9


@pytest.mark.parametrize(
    ("labels", "unit", "said", "expected"),
    [
        (True, "%", None, 1.0),
        (False, "%", None, 5.0),
        (False, "dB", None, 1.0),
        (False, "%", 0.0, 0.0),
        (True, "%", 3.0, 3.0),
    ],
)
def test_what_quality_may_go(labels: bool, unit: str, said: float | None, expected: float) -> None:
    """A point of right answers, five of agreement with the original, or what the user said."""
    line: Any = SimpleNamespace(
        config=SimpleNamespace(max_drop=said),
        data=SimpleNamespace(train=SimpleNamespace(y=np.zeros(3) if labels else None)),
        metric=SimpleNamespace(unit=unit, bounded=True),
    )
    assert finalists.least_quality(line, 90.0) == 90.0 - expected


def test_finalists_are_not_the_ends_of_the_front() -> None:
    trials = [trial(i, 91.0 - i, 11.0 - i) for i in range(1, 10)]
    chosen = finalists.choose(trials, WANTED, 3, least=80.9)
    assert sorted(t.number for t in chosen) == [3, 6, 8]


def test_an_outstanding_candidate_is_a_finalist() -> None:
    """All lie on one front; one of them beats the line between its neighbours by far."""
    trials = [trial(i, 91.0 - i, 20.0 - i) for i in range(1, 10)]
    trials[3] = trial(4, 87.0, 6.0)
    trials = [t for t in trials if t.number <= 4 or t.values["latency_ms"] < 6.0] + [trial(20, 82.0, 5.0)]
    chosen = finalists.choose(trials, WANTED, 1, least=80.9)
    assert [t.number for t in chosen] == [4]


def test_a_short_front_is_filled_from_the_next_one() -> None:
    trials = [trial(1, 90.0, 5.0), trial(2, 89.0, 6.0), trial(3, 88.0, 7.0), trial(4, 70.0, 8.0)]
    chosen = finalists.choose(trials, WANTED, 3, least=80.9)
    assert [t.number for t in chosen] == [1, 2, 3]  # each of them is beaten by the one before


def test_when_nothing_is_near_the_best_are_taken() -> None:
    trials = [trial(i, 50.0 - 4 * i, 10.0 - i) for i in range(8)]
    chosen = finalists.choose(trials, WANTED, 2, least=80.9)
    assert sorted(t.number for t in chosen) == [0, 1]


def test_the_original_is_no_finalist() -> None:
    original = Trial(0, Subnet(), "ok", {"quality": 91.0, "latency_ms": 11.0})
    chosen = finalists.choose([original, trial(1, 88, 5)], WANTED, 4, 80.9)
    assert [t.number for t in chosen] == [1]


def test_a_search_without_success_says_so() -> None:
    with pytest.raises(CheckFailed, match="no candidate could be evaluated"):
        finalists.choose([trial(1, 0, 0, "crashed")], WANTED, 4, 80.9)


def test_result_rows_and_save(tmp_path: Path) -> None:
    entry = member(1, 91.25, 3.0, (1.4, 1.5, 1.6)).to_json("pareto/rank_01")
    (tmp_path / "pareto" / "rank_01").mkdir(parents=True)
    (tmp_path / "pareto" / "rank_01" / "model.onnx").write_bytes(b"m")
    result = results.Result(tmp_path, {"best": None, "pareto": [entry]})
    assert result.best is None
    assert result.to_rows()[0]["speedup_lo"] == 1.4
    assert (result.save(tmp_path / "out") / "model.onnx").read_bytes() == b"m"
    with pytest.raises(ConfigError, match="is there already"):
        result.save(tmp_path / "out")
    with pytest.raises(ConfigError, match="rank 2"):
        result.save(tmp_path / "other", rank=2)
