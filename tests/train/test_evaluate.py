"""Evaluation against ONNX Runtime; fine-tuning of one sub-network."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from onnxnas import graph
from onnxnas.data.metrics import get_metric
from onnxnas.supernet import SuperNetwork
from onnxnas.train import Judge, evaluate, finetune, teacher_of, train
from onnxnas.train.optimizer import MovingAverage, learning_rate, make_optimizer
from tests.train import tiny


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def accuracy(model: object, x: np.ndarray, y: np.ndarray) -> float:
    session = onnxruntime.InferenceSession(model.SerializeToString())  # type: ignore[attr-defined]
    return float(100 * (session.run(None, {"x": x})[0].argmax(1) == y).mean())


def trained() -> SuperNetwork:
    net = SuperNetwork(tiny.places())
    train(net, tiny.data(), tiny.settings(epochs=6), directory=None)
    return net


def test_quality_is_that_of_the_exported_file() -> None:
    net, data = trained(), tiny.data()
    metric = get_metric("top1")
    judge = Judge(net, data, "val", metric, recalibration_images=64)
    for subnet in (net.space.maximal(), net.space.minimal()):  # type: ignore[attr-defined]
        quality = judge.quality(subnet)
        assert quality == evaluate(net, subnet, data, "val", metric, recalibration_images=64)
        model = graph.rewrite(net.space.graph, net.export_edits(subnet, judge.statistics(subnet)))
        assert data.val.y is not None
        assert accuracy(model, data.val.x["x"], data.val.y) == pytest.approx(quality, abs=1.6)
        assert quality > 40


def test_statistics_come_from_augmented_training_images() -> None:
    net, data = trained(), tiny.data()
    metric = get_metric("top1")
    plain = dataclasses.replace(data, augment=())
    key = next(iter(net.mode.keys.values()))
    found = [
        Judge(net, d, "val", metric, recalibration_images=96).statistics(net.space.maximal()).mean[key]  # type: ignore[attr-defined]
        for d in (data, data, plain)
    ]
    assert np.array_equal(found[0], found[1])
    assert np.abs(found[0] - found[2]).max() > 1e-3


def test_unlabelled_quality_is_agreement_with_the_original() -> None:
    data = tiny.data(labels=False)
    net = SuperNetwork(tiny.places("vgg"))
    space = net.space
    metric = get_metric("fidelity")
    assert evaluate(net, space.maximal(), data, "val", metric) == 100.0  # type: ignore[attr-defined]
    minimal = evaluate(net, space.minimal(), data, "val", metric)  # type: ignore[attr-defined]
    model = graph.rewrite(space.graph, space.plan(space.minimal()))  # type: ignore[attr-defined]
    x = data.val.x["x"]
    wanted = onnxruntime.InferenceSession(graphs_bytes(space.graph)).run(None, {"x": x})[0].argmax(1)
    assert minimal == pytest.approx(accuracy(model, x, wanted), abs=1.6)


def test_large_samples_are_judged_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    data, net = tiny.data(labels=False), SuperNetwork(tiny.places("vgg"))
    minimal = net.space.minimal()  # type: ignore[attr-defined]
    whole = Judge(net, data, "val", get_metric("fidelity"), recalibration_images=64)
    assert whole.batch_size == 256
    module = importlib.import_module("onnxnas.train.evaluate")  # the package has a function of that name
    monkeypatch.setattr(module, "_LARGEST", 7 * net.space.graph.values_per_sample + 1)
    parts = Judge(net, data, "val", get_metric("fidelity"), recalibration_images=64)
    assert parts.batch_size == 7
    assert parts.quality(minimal) == pytest.approx(whole.quality(minimal), abs=1.6)


def graphs_bytes(loaded: graph.Graph) -> bytes:
    return bytes(loaded.model.SerializeToString())


def test_finetuning_trains_the_slice_alone_and_makes_it_better(tmp_path: Path) -> None:
    net, data = trained(), tiny.data()
    space = net.space
    judge = Judge(net, data, "val", get_metric("top1"), recalibration_images=64)
    subnet = space.random(np.random.default_rng(1))  # type: ignore[attr-defined]
    before = {name: value.copy() for name, value in net.weights().items()}
    small = graph.load(graph.rewrite(space.graph, net.export_edits(subnet, judge.statistics(subnet))))
    options = tiny.settings(epochs=6, distillation=0.3, lr=0.02)
    tuned = finetune(small, data, options, teacher=teacher_of(space.graph), directory=tmp_path)
    assert tuned.after >= tuned.before
    assert tuned.kept
    assert tuned.training.steps == 18
    assert tuned.before == pytest.approx(judge.quality(subnet), abs=1.6)
    assert set(tuned.weights) <= set(small.initializers)
    assert all(value.shape == small.initializers[name].shape for name, value in tuned.weights.items())
    assert all(np.array_equal(value, before[name]) for name, value in net.weights().items())
    assert data.val.y is not None
    model = graph.rewrite(small, tuned.edits())
    assert accuracy(model, data.val.x["x"], data.val.y) == pytest.approx(tuned.after, abs=1.6)


@pytest.mark.parametrize("seen", [False, True])
def test_what_became_worse_is_kept_only_where_nobody_can_tell(seen: bool) -> None:
    """Trained on wrong labels: undone by samples apart; those that were trained on say nothing."""
    net, data = trained(), tiny.data()
    judge = Judge(net, data, "val", get_metric("top1"), recalibration_images=64)
    whole = net.space.maximal()
    small = graph.load(graph.rewrite(net.space.graph, net.export_edits(whole, judge.statistics(whole))))  # type: ignore[attr-defined]
    assert data.train.y is not None
    wrong = dataclasses.replace(
        data, train=dataclasses.replace(data.train, y=(data.train.y + 1) % 4), seen=seen
    )
    tuned = finetune(small, wrong, tiny.settings(epochs=6), teacher=None)
    assert tuned.after < tuned.before - 20
    assert tuned.kept is seen
    kernels = {name: value for name, value in tuned.weights.items() if value.ndim > 1}
    assert kernels
    assert seen is not all(np.array_equal(value, small.initializers[name]) for name, value in kernels.items())


def test_the_learning_rate_warms_up_and_falls() -> None:
    options = tiny.settings(lr=0.1, warmup=0.1, final_lr=0.01)
    assert learning_rate(0.05, options) == pytest.approx(0.05)
    assert learning_rate(0.1, options) == pytest.approx(0.1)
    assert learning_rate(0.55, options) == pytest.approx(0.001 + 0.099 / 2)
    assert learning_rate(1.0, options) == pytest.approx(0.001)
    assert learning_rate(0.0, options) > 0


def test_decay_spares_biases_and_norms() -> None:
    net = SuperNetwork(tiny.places())
    groups = make_optimizer(net, tiny.settings(weight_decay=0.1)).param_groups
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    assert all(weight.dim() >= 2 for weight in groups[0]["params"])
    assert all(weight.dim() == 1 for weight in groups[1]["params"])
    assert all(group["nesterov"] for group in groups)
    assert sum(len(group["params"]) for group in groups) == len(net.named_weights())


def test_the_average_follows_the_weights() -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    average = MovingAverage({"w": weight}, 0.5)
    wanted, values = 0.0, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0]
    for step, value in enumerate(values):
        with torch.no_grad():
            weight.fill_(value)
        average.update({"w": weight})
        decay = min(0.5, (1 + step) / (10 + step))
        wanted = decay * wanted + (1 - decay) * value
    assert average.average["w"].tolist() == pytest.approx([wanted, wanted], rel=1e-6)
