"""Checkpoints survive a death at any moment of writing them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from onnxnas.errors import RunError
from onnxnas.train import checkpoint


class Killed(BaseException):
    """Stands for the process ending there."""


def tensors(value: float) -> dict[str, torch.Tensor]:
    return {"a": torch.full((3, 4), value), "b": torch.full((2, 2, 2, 2), value).contiguous(memory_format=torch.channels_last)}  # fmt: skip  # noqa: E501


def test_round_trip(tmp_path: Path) -> None:
    assert checkpoint.load_state(tmp_path) is None
    checkpoint.save_state(tmp_path, "1", tensors(1.0), {"step": 1, "x": [1, None]})
    found = checkpoint.load_state(tmp_path)
    assert found is not None
    assert found[1]["step"] == 1
    assert found[1]["x"] == [1, None]
    assert all(torch.equal(found[0][name], value) for name, value in tensors(1.0).items())


@pytest.mark.parametrize("survived", range(8))
def test_killed_between_any_two_system_calls(
    survived: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save_state(tmp_path, "1", tensors(1.0), {"step": 1})
    left = [survived]

    def dying(call):
        def wrapped(*args, **keywords):
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            return call(*args, **keywords)

        return wrapped

    for name in ("fsync", "replace"):
        monkeypatch.setattr(checkpoint.os, name, dying(getattr(os, name)))
    monkeypatch.setattr(Path, "unlink", dying(Path.unlink))
    try:
        checkpoint.save_state(tmp_path, "2", tensors(2.0), {"step": 2})
        ended = True
    except Killed:
        ended = False
    monkeypatch.undo()
    found = checkpoint.load_state(tmp_path)
    assert found is not None
    step = found[1]["step"]
    assert torch.equal(found[0]["a"], tensors(float(step))["a"])
    if ended:
        assert step == 2
    checkpoint.save_state(tmp_path, "3", tensors(3.0), {"step": 3})
    assert [p.name for p in tmp_path.glob("state-*")] == ["state-3.safetensors"]


def test_some_deaths_come_before_and_some_after_the_change(tmp_path: Path) -> None:
    """The test above would pass if nothing ever died: see that its range covers both."""
    calls = []
    real = os.fsync
    try:
        checkpoint.os.fsync = lambda fd: (calls.append("fsync"), real(fd))[1]
        checkpoint.save_state(tmp_path, "1", tensors(1.0), {"step": 1})
    finally:
        checkpoint.os.fsync = real
    assert len(calls) == 4


@pytest.mark.parametrize("damage", ["json", "tensors", "missing"])
def test_damage_is_said(damage: str, tmp_path: Path) -> None:
    checkpoint.save_state(tmp_path, "1", tensors(1.0), {"step": 1})
    if damage == "json":
        (tmp_path / "state.json").write_text('{"file": ')
    elif damage == "tensors":
        (tmp_path / "state-1.safetensors").write_bytes(b"\x00" * 40)
    else:
        (tmp_path / "state-1.safetensors").unlink()
    with pytest.raises(RunError, match=r"state\.json"):
        checkpoint.load_state(tmp_path)


def test_weights(tmp_path: Path) -> None:
    weights = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "v": np.ones(2, np.float16)}
    checkpoint.save_weights(tmp_path, weights)
    found = checkpoint.load_weights(tmp_path)
    assert found.keys() == weights.keys()
    assert all(np.array_equal(found[n], weights[n]) and found[n].dtype == weights[n].dtype for n in weights)
    with pytest.raises(RunError, match="no readable weights"):
        checkpoint.load_weights(tmp_path / "nowhere")


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_optimizers_go_on_exactly(kind: type[torch.optim.Optimizer], tmp_path: Path) -> None:
    def steps(optimizer: torch.optim.Optimizer, weight: torch.nn.Parameter, first: int, last: int) -> None:
        for i in range(first, last):
            optimizer.zero_grad()
            ((weight * (i + 1)) ** 2).sum().backward()
            optimizer.step()

    def make() -> tuple[torch.optim.Optimizer, torch.nn.Parameter]:
        weight = torch.nn.Parameter(torch.linspace(-1, 1, 5))
        extra = {"momentum": 0.9} if kind is torch.optim.SGD else {}
        return kind([weight], lr=0.01, **extra), weight  # type: ignore[call-arg]

    whole, wanted = make()
    steps(whole, wanted, 0, 6)
    before, half = make()
    steps(before, half, 0, 3)
    packed, rest = checkpoint.pack_optimizer(before)
    checkpoint.save_state(tmp_path, "1", packed, {"optimizer": rest})
    loaded = checkpoint.load_state(tmp_path)
    assert loaded is not None
    after, again = make()
    with torch.no_grad():
        again.copy_(half)
    checkpoint.unpack_optimizer(after, loaded[0], loaded[1]["optimizer"])
    steps(after, again, 3, 6)
    assert torch.equal(again, wanted)
