"""Several processes make the same updates as one that works on the batch in as many parts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from onnxnas.data.torch_batches import TorchBatches
from onnxnas.errors import EnvironmentProblem
from onnxnas.supernet import SuperNetwork
from onnxnas.train import Group, joined, load_weights, train
from tests.train import tiny

CHILD = """
import sys, torch
from pathlib import Path
from onnxnas.errors import Interrupted
from onnxnas.supernet import SuperNetwork
from onnxnas.train import joined, train
from tests.train import test_group, tiny
torch.set_num_threads(1)
rank, meeting, place, stop = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
asked = iter(range(1, 1000))
with joined(rank, 2, meeting) as group:
    try:
        train(SuperNetwork(tiny.places()), tiny.data(), test_group.options(), directory=place, seed=3, group=group,
              should_stop=(lambda: next(asked) >= stop) if stop else None)
    except Interrupted:
        sys.exit(4)
"""


def options(**more: Any) -> Any:
    return tiny.settings(eval_every=1, log_steps=1, distillation=0.5, in_place=True, ema=0.9, **more)


def together(root: Path, place: Path, stop: int = 0) -> list[int]:
    """The exit statuses of two processes that train in `place`, stopped after so many steps."""
    place.mkdir(exist_ok=True)
    meeting = f"file://{place}/meeting{stop}"
    children = [
        subprocess.Popen([sys.executable, "-c", CHILD, str(rank), meeting, str(place), str(stop)], cwd=root)
        for rank in range(2)
    ]
    return [child.wait(timeout=300) for child in children]


def test_two_processes_are_one_with_two_parts(tmp_path: Path, root: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = SuperNetwork(tiny.places())
        train(alone, tiny.data(), options(accumulate=2), directory=None, seed=3)
    finally:
        torch.set_num_threads(threads)
    assert together(root, tmp_path / "two") == [0, 0]
    weights, start = load_weights(tmp_path / "two"), SuperNetwork(tiny.places()).weights()
    for name, value in alone.weights().items():
        np.testing.assert_allclose(weights[name], value, rtol=1e-3, atol=1e-4, err_msg=name)
    assert any(np.abs(value - start[name]).max() > 0.01 for name, value in weights.items())
    # stopped after four steps and continued: to the last bit what it would have been
    assert together(root, tmp_path / "parts", stop=4) == [4, 4]
    assert together(root, tmp_path / "parts") == [0, 0]
    again = load_weights(tmp_path / "parts")
    assert all(np.array_equal(again[name], value) for name, value in weights.items())
    log = (tmp_path / "two" / "log.jsonl").read_text().splitlines()
    assert len(log) == len((tmp_path / "parts" / "log.jsonl").read_text().splitlines()) == 9 + 4


@pytest.mark.parametrize("mixed", [0.0, 1.0])
def test_parts_of_batches_are_the_batches(mixed: float) -> None:
    data = tiny.data()
    batches = TorchBatches(data.train, data)

    def made(part: tuple[int, int]) -> list[torch.Tensor]:
        return [x["x"] for x, _ in batches.epoch(20, seed=1, mixed=mixed, drop_last=False, part=part)]

    whole, parts = made((1, 0)), [made((3, i)) for i in range(3)]
    for batch, *own in zip(whole, *parts, strict=True):
        assert max(len(one) for one in own) - min(len(one) for one in own) <= 1
        torch.testing.assert_close(torch.cat(own), batch, rtol=0, atol=0)


def test_alone_there_is_nothing_to_agree_on() -> None:
    with joined(0, 1, "") as group:
        assert group.first
        assert group.agree([1.5, 0.0]) == [1.5, 0.0]
        value = torch.ones(3)
        group.total([value])
        assert value.tolist() == [1, 1, 1]


def test_processes_that_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datetime

    from onnxnas.train import group

    monkeypatch.setattr(group, "_MEETING", datetime.timedelta(seconds=1))
    with (
        pytest.raises(EnvironmentProblem, match="a process of the training is gone"),
        joined(0, 2, f"file://{tmp_path}/meeting"),
    ):
        pass


def test_a_group_of_one_is_the_default() -> None:
    assert Group().first
