"""Which optimizer a network gets, and with what learning rate."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from onnxnas import graph
from onnxnas.errors import ConfigError
from onnxnas.pipeline import config as configuration
from onnxnas.pipeline import finetuning
from onnxnas.supernet import SuperNetwork
from onnxnas.testing import graphs
from onnxnas.train import TrainSettings, settled, train
from onnxnas.train.optimizer import OPTIMIZERS, learning_rate, make_optimizer
from tests.train import tiny

ATTEND = {"vit", "bert"}


@pytest.mark.parametrize("name", sorted(graphs.NETWORKS))
def test_networks_with_attention_get_adamw(name: str) -> None:
    found = settled(TrainSettings.model_validate({}), graph.load(graphs.NETWORKS[name](0)))
    expected = "adamw" if name.split("_")[0] in ATTEND else "sgd"
    assert found.optimizer == expected
    assert found.lr == OPTIMIZERS[expected].lr
    assert found.weight_decay == OPTIMIZERS[expected].weight_decay
    assert settled(found, graph.load(graphs.resnet())) == found  # what is settled stays


def test_sgd_is_as_it_was() -> None:
    found = settled(TrainSettings.model_validate({}), graph.load(graphs.resnet()))
    assert (found.lr, found.weight_decay, found.momentum) == (0.02, 1e-4, 0.9)
    assert (
        settled(found.model_copy(update={"lr": None, "strategy": "fixed"}), graph.load(graphs.vit())).lr
        == 0.05
    )


@pytest.mark.parametrize("given", [{"lr": 0.3}, {"optimizer": "sgd"}, {"weight_decay": 0.0}])
def test_what_the_user_says_is_kept(given: dict[str, Any]) -> None:
    found = settled(TrainSettings.model_validate(given), graph.load(graphs.vit())).model_dump()
    assert {key: found[key] for key in given} == given
    assert found["optimizer"] == given.get("optimizer", "adamw")


def test_a_sub_network_without_attention_is_finetuned_as_its_original() -> None:
    config = configuration.resolve({"model": "m.onnx", "data": "d.npz", "output": "o"})
    line: Any = SimpleNamespace(config=config, graph=graph.load(graphs.vit()))
    found = finetuning.settings(line, 2.0)
    assert (found.optimizer, found.lr) == ("adamw", OPTIMIZERS["adamw"].finetuning_lr)
    own = configuration.resolve({**config.model_dump(), "finalise": {"lr": 0.07}})
    assert finetuning.settings(SimpleNamespace(config=own, graph=line.graph), 2.0).lr == 0.07  # type: ignore[arg-type]
    again = settled(found.for_finetuning(), graph.load(graphs.resnet()))
    assert (again.optimizer, again.lr) == (found.optimizer, found.lr)


@pytest.mark.parametrize(
    ("training", "finalists", "expected"),
    [(None, None, OPTIMIZERS["adamw"].weight_decay), (0.3, None, 0.3), (0.3, 0.0, 0.0), (None, 0.2, 0.2)],
)
def test_finalists_may_have_a_weight_decay_of_their_own(
    training: float | None, finalists: float | None, expected: float
) -> None:
    body = {"train": {"weight_decay": training}, "finalise": {"weight_decay": finalists}}
    line = line_of(body)
    assert finetuning.settings(line, 1.0).weight_decay == expected
    assert line.config.train.weight_decay == training


def test_finalists_may_see_pictures_of_their_own() -> None:
    """What `finalise` says of mixing and of epochs that come again, else what `train` says."""
    training = {"mixed": 0.3, "distinct_epochs": 5}
    assert told(line_of({})) == (0.0, None)
    assert told(line_of({"train": training})) == (0.3, 5)
    assert told(line_of({"train": training, "finalise": {"mixed": 0.0}})) == (0.0, 5)
    assert told(line_of({"finalise": {"mixed": 0.7, "distinct_epochs": 8}})) == (0.7, 8)


def told(line: Any) -> tuple[float, int | None]:
    found = finetuning.settings(line, 1.0)
    return found.mixed, found.distinct_epochs


def line_of(body: dict[str, Any]) -> Any:
    config = configuration.resolve({"model": "m.onnx", "data": "d.npz", "output": "o", **body})
    return SimpleNamespace(config=config, graph=graph.load(graphs.vit()))


def test_an_unknown_optimizer_is_named_with_what_there_is() -> None:
    with pytest.raises(ConfigError, match="'adam' is unknown; expected auto, sgd, adamw or module:name"):
        settled(TrainSettings.model_validate({"optimizer": "adam"}), graph.load(graphs.resnet()))


def test_rates_are_of_settled_settings() -> None:
    with pytest.raises(ValueError, match="settled"):
        learning_rate(0.5, TrainSettings.model_validate({}))


def test_adamw_decays_matrices_alone_and_learns() -> None:
    torch.set_num_threads(1)
    net = SuperNetwork(tiny.places("vit"))
    options = tiny.settings(lr=None, weight_decay=None, epochs=8, log_steps=1)
    optimizer = make_optimizer(net, options)
    assert isinstance(optimizer, torch.optim.AdamW)
    decays = [
        (g["weight_decay"], min(w.squeeze().dim() for w in g["params"])) for g in optimizer.param_groups
    ]
    assert decays[0] == (OPTIMIZERS["adamw"].weight_decay, 2)
    assert decays[1][0] == 0.0
    rows: list[Any] = []
    train(net, tiny.data(), options, directory=None, on_event=rows.append)
    losses = [row["loss"] for row in rows if "loss" in row]
    rates = [row["lr"] for row in rows if "lr" in row]
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
    assert max(rates) == pytest.approx(OPTIMIZERS["adamw"].lr, rel=0.1)
