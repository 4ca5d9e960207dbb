"""A glance at a sub-network against the same figure computed from ONNX Runtime's outputs."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from scipy.special import log_softmax

from onnxnas import graph
from onnxnas.supernet import SuperNetwork
from onnxnas.train import Glance, TrainSettings, train
from tests.train import tiny

IMAGES = 48


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def trained() -> SuperNetwork:
    net = SuperNetwork(tiny.places())
    train(net, tiny.data(), tiny.settings(epochs=4), directory=None)
    return net


def outputs(model: object, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString())  # type: ignore[attr-defined]
    return np.asarray(session.run(None, {"x": x})[0])


@pytest.mark.parametrize("labels", [True, False])
def test_it_is_the_divergence_from_the_original(trained: SuperNetwork, labels: bool) -> None:
    """By hand: statistics of these very images in the file, both files in ONNX Runtime, the formula in numpy."""
    net, data = trained, tiny.data(labels=labels)
    x = data.val.x["x"][:IMAGES]
    glance = Glance(net, data, TrainSettings(temperature=3.0), IMAGES)
    original = outputs(graph.rewrite(net.space.graph, ()), x)
    for subnet in (net.space.maximal(), net.space.minimal()):  # type: ignore[attr-defined]
        found = glance.loss(subnet)
        net.eval()
        statistics = net.recalibrate([{"x": torch.from_numpy(x)}], subnet)
        cut = outputs(graph.rewrite(net.space.graph, net.export_edits(subnet, statistics)), x)
        mine, theirs = log_softmax(cut / 3.0, 1), log_softmax(original / 3.0, 1)
        expected = 9.0 * (np.exp(theirs) * (theirs - mine)).sum(1).mean()
        assert found == pytest.approx(expected, rel=1e-3)


def test_it_leaves_the_network_as_it_was(trained: SuperNetwork) -> None:
    net = trained
    net.bf16 = True
    before = {name: value.detach().clone() for name, value in net.named_weights().items()}
    for training in (True, False):
        net.train(training)
        Glance(net, tiny.data(), tiny.settings(), 16).loss(net.space.minimal())  # type: ignore[attr-defined]
        assert (net.training, net.mode.state) == (training, "train" if training else "eval")
        assert net.bf16
    net.bf16 = False
    assert all(torch.equal(value, before[name]) for name, value in net.named_weights().items())


def test_more_images_than_there_are(trained: SuperNetwork) -> None:
    data = tiny.data()
    everything, more = (Glance(trained, data, tiny.settings(), n) for n in (data.val.n, 10_000))
    subnet = trained.space.minimal()  # type: ignore[attr-defined]
    assert everything.loss(subnet) == more.loss(subnet)
