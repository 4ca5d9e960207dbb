"""Importance by data: against finite differences of the loss, with labels and without."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from onnxnas import analysis, space
from onnxnas.data import DataSet
from onnxnas.errors import ConfigError
from onnxnas.supernet import SuperNetwork
from onnxnas.train import saliency
from onnxnas.train.losses import Criterion
from tests.train import tiny

Weights = Mapping[str, NDArray[np.float32]]
STEP = 1e-2


def loss_of(network: SuperNetwork, weights: Weights, data: DataSet) -> float:
    """Over the whole training split."""
    network.load(weights)
    assert data.train.y is not None
    x = {name: torch.from_numpy(value) for name, value in data.train.x.items()}
    with torch.no_grad():
        outputs = network(x)
        criterion = Criterion(network.space.graph, data, "auto", 0.0, 1.0)
        return float(criterion(outputs, torch.from_numpy(data.train.y), None))


def grown(found: analysis.Analysis, weights: Weights, unit: int, by: float) -> dict[str, NDArray[np.float32]]:
    """All matrices and filters with the slices of one unit made larger."""
    changed = dict(weights)
    for (tensor, axis), units in found.labels.axes.items():
        if tensor in changed and changed[tensor].ndim > 1:
            shape = [-1 if a == axis else 1 for a in range(changed[tensor].ndim)]
            changed[tensor] = changed[tensor] * (1 + by * (units == unit)).astype(np.float32).reshape(shape)
    return changed


def test_a_score_is_the_squared_change_of_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    data = tiny.data(32, augment=())
    monkeypatch.setattr(saliency, "BATCH", 32)
    places = tiny.places("resnet")
    network = SuperNetwork(places)
    found = analysis.analyse(places.graph)
    scores = space.by_data(found, saliency.products(network, data, batches=1))
    weights = {n: w.detach().numpy().copy() for n, w in network.named_weights().items()}
    network.eval()
    changes, told = [], []
    for group in found.groups:
        for unit in group.units[:3]:
            up, down = (loss_of(network, grown(found, weights, unit, s * STEP), data) for s in (1, -1))
            changes.append(abs(up - down) / (2 * STEP))
            told.append(np.sqrt(scores[unit]))
    assert len(told) >= 6
    np.testing.assert_allclose(changes, told, rtol=0.02, atol=0.02 * max(told))
    order = space.by_score(found.groups, scores)
    for group in found.groups:
        assert (np.diff(scores[group.units][order[group.id]]) <= 0).all()


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_without_labels_the_network_says_them(name: str) -> None:
    """The same for the same seed; not zero, which the loss against itself as a teacher would be."""
    network = SuperNetwork(tiny.places(name))
    data = tiny.data(64, labels=False)
    first, again, other = (list(saliency.products(network, data, seed=s, batches=2)) for s in (3, 3, 4))
    assert len(first) == 2
    assert all(np.array_equal(first[0][n], again[0][n]) for n in first[0])
    assert any(not np.array_equal(first[0][n], other[0][n]) for n in first[0])
    scores = space.by_data(analysis.analyse(network.space.graph), first)
    groups = network.space.groups
    assert all((scores[g.units] > 0).mean() > 0.9 for g in groups)


def test_an_unknown_rule() -> None:
    with pytest.raises(ConfigError, match="got 'l3', expected l1, l2 or none"):
        space.build(analysis.analyse(tiny.places().graph), order="l3")
