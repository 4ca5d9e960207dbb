"""The training loop: it learns, records, is killed and goes on."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboardX.proto.event_pb2 import Event

from onnxnas.errors import CheckFailed, ConfigError, Interrupted, RunError
from onnxnas.supernet import SuperNetwork
from onnxnas.train import TrainSettings, load_weights, train
from tests.train import tiny


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def stop_at(step: int) -> Callable[[], bool]:
    calls = iter(range(1, 10_000))
    return lambda: next(calls) >= step


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("strategy", ["sandwich", "alternating", "progressive", "single_stage", "fixed"])
def test_loss_falls_and_quality_rises(strategy: str, tmp_path: Path) -> None:
    net = SuperNetwork(tiny.places())
    rows: list[Any] = []
    options = tiny.settings(strategy=strategy, epochs=8, eval_every=8, log_steps=1, random_subnets=2)
    result = train(net, tiny.data(), options, directory=tmp_path, on_event=rows.append)
    losses = [row["loss"] for row in rows if "loss" in row]
    assert np.mean(losses[-4:]) < 0.5 * np.mean(losses[:4])
    evaluations = [row["eval"] for row in rows if "eval" in row]
    assert len(evaluations) == 2
    assert result.evaluation == evaluations[-1]
    assert evaluations[-1]["max"] > 65 > evaluations[0]["max"]
    assert result.steps == 24
    assert ("min" in result.evaluation) is (strategy != "fixed")


def test_rows_of_the_log(tmp_path: Path) -> None:
    seen: list[Any] = []
    options = tiny.settings(eval_every=1, log_steps=2)
    train(SuperNetwork(tiny.places()), tiny.data(), options, directory=tmp_path, on_event=seen.append)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rows == seen
    steps = [row for row in rows if "loss" in row]
    assert set(steps[0]) == {"epoch", "step", "seconds", "lr", "loss", "images_per_second"}
    assert [row["step"] for row in steps] == [1, 2, 4, 6, 8, 9]
    assert [row["epoch"] for row in rows if "eval" in row] == [0, 1, 2, 3]
    assert set(rows[0]["eval"]) == {"max", "min", "random_0"}


@pytest.mark.parametrize("stop", [1, 4])
@pytest.mark.parametrize("extra", [{}, {"ema": 0.9, "in_place": True, "distillation": 0.5}])
def test_resume_is_equal_to_the_last_bit(stop: int, extra: dict[str, Any], tmp_path: Path) -> None:
    options = tiny.settings(eval_every=1, log_steps=1, **extra)
    whole = SuperNetwork(tiny.places())
    first = train(whole, tiny.data(), options, directory=tmp_path / "whole", seed=3)
    with pytest.raises(Interrupted):
        train(
            SuperNetwork(tiny.places()),
            tiny.data(),
            options,
            directory=tmp_path / "parts",
            seed=3,
            should_stop=stop_at(stop),
        )
    torch.manual_seed(99)
    again = SuperNetwork(tiny.places())
    second = train(again, tiny.data(), options, directory=tmp_path / "parts", seed=3)
    assert same(whole.weights(), again.weights())
    assert first.evaluation == second.evaluation
    logs = [(tmp_path / k / "log.jsonl").read_text().splitlines() for k in ("whole", "parts")]
    kept = [[(r["step"], r.get("loss"), r.get("eval")) for r in map(json.loads, log)] for log in logs]
    assert kept[0] == kept[1]


def test_a_batch_in_parts_is_the_same_update() -> None:
    """No BatchNormalization, so nothing but the order of additions differs; 40 = 13 + 13 + 14.

    By sgd, whose update is linear in the gradient; adamw divides rounding errors by themselves where there is none.
    """
    weights = []
    for parts in (1, 3):
        net = SuperNetwork(tiny.places("vit"))
        options = tiny.settings(
            batch_size=40, accumulate=parts, epochs=2, strategy="fixed", distillation=0.5, optimizer="sgd"
        )
        train(net, tiny.data(), options, directory=None, seed=1)
        weights.append(net.weights())
    start = SuperNetwork(tiny.places("vit")).weights()
    for name, value in weights[0].items():
        np.testing.assert_allclose(weights[1][name], value, rtol=1e-4, atol=1e-5, err_msg=name)
    assert any(not np.array_equal(start[name], value) for name, value in weights[0].items())


def test_more_parts_than_samples_are_one_each() -> None:
    weights = []
    for parts in (4, 7):
        net = SuperNetwork(tiny.places("vit"))
        options = tiny.settings(batch_size=4, accumulate=parts, epochs=0.2, strategy="fixed")
        train(net, tiny.data(), options, directory=None, seed=1)
        weights.append(net.weights())
    assert same(weights[0], weights[1])
    assert not same(weights[0], SuperNetwork(tiny.places("vit")).weights())


def test_curves_are_the_log(tmp_path: Path) -> None:
    """TensorBoard's files, read by the record format: length, checksum, event, checksum."""
    options = tiny.settings(eval_every=1, log_steps=1)
    with pytest.raises(Interrupted):
        train(SuperNetwork(tiny.places()), tiny.data(), options, directory=tmp_path, should_stop=stop_at(4))
    train(SuperNetwork(tiny.places()), tiny.data(), options, directory=tmp_path)
    found: dict[str, list[tuple[int, float]]] = {}
    for file in sorted((tmp_path / "tensorboard").iterdir()):
        content, at = file.read_bytes(), 0
        while at < len(content):
            (length,) = struct.unpack_from("<Q", content, at)
            event = Event.FromString(content[at + 12 : at + 12 + length])
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
            at += length + 16
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    for tag, values in found.items():
        part, name = tag.split("/")
        told = [
            row if part == "train" else row["eval"]
            for row in rows
            if name in row or name in row.get("eval", {})
        ]
        steps = [row["step"] for row in rows if name in row or name in row.get("eval", {})]
        assert [step for step, _ in values] == steps
        np.testing.assert_allclose([v for _, v in values], [one[name] for one in told], rtol=1e-5)
    assert set(found) == {
        *("train/loss", "train/lr", "train/images_per_second"),
        *("quality/max", "quality/min", "quality/random_0"),
    }


def test_a_finished_run_is_not_repeated(tmp_path: Path) -> None:
    net = SuperNetwork(tiny.places())
    first = train(net, tiny.data(), tiny.settings(), directory=tmp_path)
    fresh = SuperNetwork(tiny.places())
    events: list[Any] = []
    assert train(fresh, tiny.data(), tiny.settings(), directory=tmp_path, on_event=events.append) == first
    assert not events
    assert same(fresh.weights(), net.weights())
    assert same(load_weights(tmp_path), net.weights())


def test_rows_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    options = tiny.settings(log_steps=1)
    with pytest.raises(Interrupted):
        train(SuperNetwork(tiny.places()), tiny.data(), options, directory=tmp_path, should_stop=stop_at(4))
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"epoch": 2, "step": 5, "lo')  # killed while writing
    train(SuperNetwork(tiny.places()), tiny.data(), options, directory=tmp_path)
    steps = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 10))


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("settings", {"options": {"lr": 0.01}}),
        ("seed", {"seed": 4}),
        ("data set", {"n": 64}),
        ("model", {"network": "resnet_a"}),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(what: str, change: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(
            SuperNetwork(tiny.places()),
            tiny.data(),
            tiny.settings(),
            directory=tmp_path,
            should_stop=stop_at(2),
        )
    with pytest.raises(RunError, match=f"another {what}"):
        train(
            SuperNetwork(tiny.places(change.get("network", "resnet"))),
            tiny.data(change.get("n", 96)),
            tiny.settings(**change.get("options", {})),
            directory=tmp_path,
            seed=change.get("seed", 0),
        )


def test_the_clock_ends_the_run_with_a_low_rate() -> None:
    now = [0.0]

    def tick() -> float:
        now[0] += 0.2
        return now[0]

    rows: list[Any] = []
    options = tiny.settings(epochs=1000, max_seconds=10, log_steps=1)
    network = SuperNetwork(tiny.places())
    result = train(network, tiny.data(), options, directory=None, on_event=rows.append, clock=tick)
    assert 10 <= result.seconds < 11
    assert result.steps <= 51
    rates = [row["lr"] for row in rows]
    assert max(rates) == pytest.approx(0.05, rel=0.02)
    assert rates[-1] < 0.1 * max(rates)


def test_divergence_is_an_error() -> None:
    options = tiny.settings(epochs=30, loss=f"{__file__}:not_a_number")
    with pytest.raises(CheckFailed, match="lower learning rate"):
        train(SuperNetwork(tiny.places("vgg")), tiny.data(), options, directory=None)


def not_a_number(outputs: Any, y: Any) -> Any:
    return outputs[0].sum() * float("nan")


def test_without_labels_the_student_comes_back_to_the_original() -> None:
    net = SuperNetwork(tiny.places("vgg"))
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in net.parameters():
            weight += 0.3 * weight.std() * torch.randn_like(weight)
    options = tiny.settings(strategy="fixed", epochs=10, eval_every=10, log_steps=1, lr=0.02, eval_random=0)
    rows: list[Any] = []
    train(net, tiny.data(labels=False), options, directory=None, on_event=rows.append)
    losses = [row["loss"] for row in rows if "loss" in row]
    assert np.mean(losses[-3:]) < 0.3 * np.mean(losses[:3])
    qualities = [row["eval"]["max"] for row in rows if "eval" in row]
    assert qualities[-1] > qualities[0]


def test_settings_refuse_unknown_keys() -> None:
    with pytest.raises(ValueError, match="learning_rate"):
        TrainSettings.model_validate({"learning_rate": 1})


def test_the_same_batches_come_again_after_so_many_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every step the pictures that the network gets: as long as they are distinct, those of a run without."""
    assert [
        len(set(seen(monkeypatch, epochs, distinct))) for epochs, distinct in ((4, None), (4, 2), (4, 9))
    ] == [
        12,
        6,
        12,
    ]
    plain, again = seen(monkeypatch, 4, None), seen(monkeypatch, 4, 2)
    assert again == plain[:6] * 2


def seen(monkeypatch: pytest.MonkeyPatch, epochs: int, distinct: int | None) -> list[bytes]:
    net, found = SuperNetwork(tiny.places()), []
    forward = net.forward

    def watched(x: Any) -> Any:
        found.append(x["x"].numpy().tobytes())
        return forward(x)

    monkeypatch.setattr(net, "forward", watched)
    options = tiny.settings(strategy="fixed", epochs=epochs, distinct_epochs=distinct)
    train(net, tiny.data(), options, directory=None)
    return found


def test_mixed_pictures_are_learnt_from_the_teacher_alone() -> None:
    """With every batch mixed, labels have no say; without a teacher there is nothing to learn from them."""
    data, options = tiny.data(), tiny.settings(epochs=2, mixed=1.0, distillation=0.5)
    assert data.train.y is not None
    wrong = replace(data, train=replace(data.train, y=(data.train.y + 1) % 4))
    one, other = SuperNetwork(tiny.places()), SuperNetwork(tiny.places())
    train(one, data, options, directory=None)
    train(other, wrong, options, directory=None)
    assert same(dict(one.weights()), dict(other.weights()))
    assert not same(dict(one.weights()), dict(SuperNetwork(tiny.places()).weights()))
    with pytest.raises(
        ConfigError, match=r"mixed is 1: mixed pictures need .* a teacher .* distillation 0\."
    ):
        train(one, data, tiny.settings(mixed=1.0, distillation=0.0), directory=None)
    with pytest.raises(ConfigError, match=r"mixed pictures need pictures.* inputs \['x'\]"):
        train(one, replace(data, images=frozenset()), options, directory=None)
