"""A finalist that several processes fine-tune together."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import save_file

from onnxnas.pipeline import finetuning, team, tuning_plan
from onnxnas.pipeline.crew import Crew
from onnxnas.pipeline.line import Line
from onnxnas.train import load_weights
from onnxnas.types import Subnet
from tests.pipeline.test_crew import changed, copy, opened
from tests.tools.test_cifar import tool

__all__ = ["copy"]

SUBNETS = (Subnet(), Subnet(skip=frozenset({"b0"})))


def requests(count: int, processes: int) -> list[dict[str, Any]]:
    return [
        {
            "do": "tune",
            "subnet": subnet.to_json(),
            "index": index,
            "epochs": 1.0,
            "limit": None,
            "processes": processes,
            "threads": 1,
        }
        for index, subnet in enumerate(SUBNETS[:count], 1)
    ]


def trained(run: Path, index: int) -> dict[str, Any]:
    """What training came to, be it kept or not."""
    return load_weights(run / "finalists" / f"{index:02d}")


def close(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(np.allclose(one[name], value, rtol=1e-3, atol=1e-4) for name, value in other.items())


def in_parts(run: Path, parts: int) -> Line:
    """The run with batches worked on in so many parts, and lessons that say what no teacher would."""
    line = opened(run)
    line.config = changed(line.config, "train", accumulate=parts)
    place = finetuning.lessons(line).directory
    assert place is not None
    place.mkdir(parents=True, exist_ok=True)
    outputs = torch.randn((line.data.train.n, 10), generator=torch.Generator().manual_seed(5))
    save_file({"0": 5 * outputs}, place / "epoch-0000.safetensors")
    return line


def test_two_processes_are_one_with_two_parts(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with its part of what is known of a batch; one after the other, and two finalists at a time."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found: dict[str, list[dict[str, Any]]] = {}
    for name, parts, processes, crew in (
        ("whole", 1, 1, 1),
        ("parts", 2, 1, 1),
        ("two", 1, 2, 1),
        ("four", 1, 2, 2),
    ):
        with Crew(in_parts(copy, parts), crew) as at_work:
            told = at_work.map(requests(2, processes))
        assert all(one["val_quality"] is not None for one in told)
        found[name] = [trained(copy, index) for index in (1, 2)]
        shutil.rmtree(copy / "finalists")
    for index in range(2):
        assert close(found["two"][index], found["parts"][index])
        assert not close(found["whole"][index], found["parts"][index])  # other statistics
        assert all(
            np.array_equal(found["four"][index][key], value) for key, value in found["two"][index].items()
        )
    assert not [
        p for p in psutil.Process().children(recursive=True) if "onnxnas.pipeline.worker" in p.cmdline()
    ]


def test_what_is_done_is_left_alone(copy: Path) -> None:
    with Crew(opened(copy), 1) as crew:
        first = crew.map(requests(1, 2))
        place = copy / "finalists" / "01" / finetuning.TRAINABLE
        before = place.stat().st_mtime_ns
        assert crew.map(requests(1, 2)) == first
    assert place.stat().st_mtime_ns == before


def test_both_ways_are_compared(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A table row for each trial: the rates, and their ratio within its interval."""
    trials = (copy / "trials.csv").read_text().splitlines()
    number = trials[1].split(",")[0]
    assert (
        tool("bench_finetuning").main([str(copy), "--trial", number, "--processes", "2", "--rounds", "2"])
        == 0
    )
    row = [cell.strip() for cell in capsys.readouterr().out.splitlines()[-1].split("|")[1:-1]]
    assert row[0] == number
    assert min(float(row[2]), float(row[3])) > 0
    ratio, low, high = (float(value) for value in re.findall(r"[0-9.]+", row[4]))
    assert 0 < low <= ratio <= high


def test_sizes_worth_trying(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxnas.measure.available_cores", lambda: tuple(range(8)))
    monkeypatch.setattr(team, "fitting_memory", lambda: 8)

    def found(seconds: float | None, at_a_time: int, processes: int | None = None) -> list[int]:
        line = opened(copy, processes=processes)
        line.config = changed(line.config, "train", batch_size=128)
        return team.sizes_for_finalists(line, seconds, at_a_time)

    assert [found(600.0, crew) for crew in (1, 2, 4, 5, 8)] == [[1, 4], [1, 4], [1, 2], [1], [1]]
    assert found(60.0, 1) == found(None, 1) == [1]
    assert [found(None, crew, processes=6) for crew in (1, 2, 4, 6)] == [[6], [3], [1], [1]]
    monkeypatch.setattr(team, "fitting_memory", lambda: 7)
    assert [found(600.0, crew) for crew in (1, 2)] == [[1, 4], [1]]
    accelerated = opened(copy, processes=4)
    monkeypatch.setattr(type(accelerated), "device", "cuda")
    assert team.sizes_for_finalists(accelerated, 600.0, 1) == [1]
    monkeypatch.undo()
    monkeypatch.setenv("WORLD_SIZE", "4")  # those of the launcher are gone
    assert found(600.0, 1) == found(600.0, 1, processes=6) == [1]


@pytest.mark.parametrize(("gain", "processes", "epochs"), [(1.5, 2, 15.0), (1.01, 1, 10.0), (0.5, 1, 10.0)])
def test_the_faster_way_is_planned_for(
    copy: Path, monkeypatch: pytest.MonkeyPatch, gain: float, processes: int, epochs: float
) -> None:
    """By what was measured: one process does ten epochs in the time there is."""
    line = opened(copy, processes=None, epochs=100.0, max_seconds=1000.0, measure_seconds=1e-3)
    monkeypatch.setattr(tuning_plan, "_OVERHEAD_SECONDS", 0.0)
    monkeypatch.setattr(tuning_plan, "sizes_for_finalists", lambda *_: [1, 2])
    rate = 10 * line.finishing.train.n / 1000.0
    crew = Crew(line, 1)

    def speeds(asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
        faster = gain if asked[0]["processes"] == 2 else 1.0
        return [{"samples_per_second": faster * rate, "teacher_samples_per_second": None} for _ in asked]

    monkeypatch.setattr(crew, "map", speeds)
    plan = tuning_plan.planned(line, [SUBNETS[1]], [1], crew)
    assert plan["processes"] == processes
    assert plan["epochs"] == pytest.approx([epochs], rel=0.01)
    assert plan["limits"] == pytest.approx([1100.0], rel=0.01)
