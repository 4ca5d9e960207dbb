"""BatchNormalization put back into a network whose BatchNormalizations were folded."""

from __future__ import annotations

import numpy as np
import onnxruntime
import torch

from onnxnas import graph
from onnxnas.graph import Graph
from onnxnas.supernet import FixedSpace, SuperNetwork, folded, recreate_batchnorm
from onnxnas.testing import graphs
from onnxnas.types import Subnet
from rewriters.edits import FoldBatchNorm


def folded_network(name: str) -> tuple[Graph, Graph]:
    """A network and the same with its BatchNormalizations folded away."""
    loaded = graph.load(graphs.NETWORKS[name]())
    edits = [FoldBatchNorm(n.name) for n in loaded.nodes if n.op_type == "BatchNormalization"]
    return loaded, graph.load(graph.rewrite(loaded, edits))


def test_every_folded_convolution_is_found() -> None:
    for name in ("resnet", "resnet_a", "mbconv"):
        loaded, bare = folded_network(name)
        norms = [n for n in loaded.nodes if n.op_type == "BatchNormalization"]
        had = {loaded.producer(n.inputs[0]).name for n in norms}  # type: ignore[union-attr]
        assert set(folded(bare)) == had
        assert folded(loaded) == ()


def test_transformers_and_networks_without_biases_are_left_alone() -> None:
    for name in ("vit", "bert"):
        assert folded(graph.load(graphs.NETWORKS[name]())) == ()


def test_the_function_stays_and_the_statistics_are_those_of_the_images() -> None:
    _, bare = folded_network("resnet_a")
    rng = np.random.default_rng(0)
    images = [rng.normal(0.5, 2.0, (n, 3, 8, 8)).astype(np.float32) for n in (16, 8)]
    made = recreate_batchnorm(bare, [torch.from_numpy(i) for i in images])
    norms = [n for n in made.nodes if n.op_type == "BatchNormalization"]
    assert len(norms) == len(folded(bare)) > 0
    x = images[0]
    results = [
        onnxruntime.InferenceSession(g.model.SerializeToString()).run(None, {g.inputs[0]: x})[0]
        for g in (bare, made)
    ]
    np.testing.assert_allclose(results[1], results[0], atol=1e-4 * np.abs(results[0]).max())
    # the first one, by numpy: statistics of the first convolution's output over all images
    conv = made.producer(norms[0].inputs[0])
    assert conv is not None
    w, b = (torch.from_numpy(made.initializers[k].copy()) for k in conv.inputs[1:3])
    pads = conv.attributes["pads"][0]
    y = torch.nn.functional.conv2d(torch.from_numpy(np.concatenate(images)), w, b, padding=pads).double()
    np.testing.assert_allclose(made.initializers[norms[0].inputs[3]], y.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        made.initializers[norms[0].inputs[4]], y.var((0, 2, 3), correction=0), rtol=1e-4
    )


def test_recalibrated_on_the_same_images_it_is_still_nearly_the_same() -> None:
    _, bare = folded_network("resnet")
    rng = np.random.default_rng(1)
    x = torch.from_numpy(rng.normal(0, 1, (64, 3, 8, 8)).astype(np.float32))
    made = recreate_batchnorm(bare, [x])
    net, plain = SuperNetwork(FixedSpace(made)).eval(), SuperNetwork(FixedSpace(bare)).eval()
    statistics = net.recalibrate([x], Subnet())
    net.activate(Subnet(), statistics)
    with torch.no_grad():
        a, b = net(x)[0], plain(x)[0]
    assert (a - b).abs().max() < 1e-3 * b.abs().max()
