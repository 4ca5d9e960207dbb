"""The super-network against ONNX Runtime, and what training reaches."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto

from onnxnas import analysis, graph, space
from onnxnas.errors import ConfigError, ModelError
from onnxnas.graph import Graph
from onnxnas.space import SearchSpace
from onnxnas.supernet import FixedSpace, Statistics, SuperNetwork
from onnxnas.testing import graphs
from onnxnas.types import Subnet


def run_onnx(model: ModelProto, feeds: dict[str, NDArray[np.generic]]) -> list[NDArray[np.generic]]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return list(onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, feeds))


def run_torch(net: SuperNetwork, feeds: dict[str, NDArray[np.generic]]) -> list[NDArray[np.generic]]:
    with torch.no_grad():
        return [y.numpy() for y in net.eval()({name: torch.from_numpy(v) for name, v in feeds.items()})]


def difference(mine: list[NDArray[np.generic]], wanted: list[NDArray[np.generic]]) -> float:
    """The contract's max_rel: max |a-b| / max |b|, the worst over the outputs."""
    assert [a.shape for a in mine] == [b.shape for b in wanted]
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(mine, wanted, strict=True))


def built(name: str) -> tuple[Graph, SearchSpace]:
    loaded = graph.load(graphs.NETWORKS[name]())
    return loaded, space.build(analysis.analyse(loaded), elastic=("depth", "width", "kernel"))


def choices(places: SearchSpace) -> list[Subnet]:
    rng = np.random.default_rng(5)
    return [
        places.minimal(),
        *(places.random(rng) for _ in range(3)),
        places.random(rng, frozenset({"width"})),
    ]


@pytest.mark.parametrize("name", sorted(graphs.NETWORKS))
def test_maximal_is_the_original(name: str) -> None:
    model = graphs.NETWORKS[name]()
    loaded = graph.load(model)
    feeds = graph.example_inputs(loaded, batch=2)
    net = SuperNetwork(FixedSpace(loaded))
    assert difference(run_torch(net, feeds), run_onnx(model, feeds)) < 1e-4


@pytest.mark.parametrize("name", sorted(graphs.NETWORKS))
def test_subnets_are_the_rewritten_file(name: str) -> None:
    loaded, places = built(name)
    feeds = graph.example_inputs(loaded, batch=2)
    net = SuperNetwork(places)
    for subnet in choices(places):
        net.activate(subnet)
        wanted = run_onnx(graph.rewrite(loaded, places.plan(subnet)), feeds)
        assert difference(run_torch(net, feeds), wanted) < 1e-4, subnet


def test_trained_weights_and_statistics_go_back_into_the_file() -> None:
    loaded, places = built("resnet_a")
    net = SuperNetwork(places)
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for weight in net.parameters():
            weight += 0.1 * torch.from_numpy(rng.standard_normal(tuple(weight.shape), dtype=np.float32))
    batches = [torch.from_numpy(rng.standard_normal((8, 3, 8, 8), dtype=np.float32)) for _ in range(3)]
    feeds = {loaded.inputs[0]: rng.standard_normal((4, 3, 8, 8), dtype=np.float32)}
    for subnet in choices(places):
        statistics = net.recalibrate(batches, subnet)
        edits = net.export_edits(subnet, statistics)
        net.activate(subnet, statistics)
        mine = run_torch(net, feeds)
        assert difference(mine, run_onnx(graph.rewrite(loaded, edits), feeds)) < 1e-4, subnet
        net.activate(subnet)
        assert difference(run_torch(net, feeds), mine) > 1e-3  # the statistics do matter


def test_gradients_reach_the_kept_part_only() -> None:
    _, places = built("resnet")
    net = SuperNetwork(places).train()
    group = max(places.groups, key=lambda g: g.size)
    subnet = Subnet(width={group.id: group.choices[-1]})
    keeps = {}
    for edit in places.plan(subnet):
        if type(edit).__name__ == "Keep":
            keeps.setdefault(edit.tensor, []).append((edit.axis, edit.indices))
    net.activate(subnet)
    torch.manual_seed(0)
    net(torch.randn(4, 3, 8, 8))[0].square().sum().backward()
    weights = net.named_weights()
    sliced = [name for name in keeps if name in weights and weights[name].dim() == 4]
    assert sliced
    for name in sliced:
        gradient = weights[name].grad
        assert gradient is not None
        inside = torch.ones(gradient.shape, dtype=torch.bool)
        for axis, indices in keeps[name]:
            here = torch.zeros(gradient.shape[axis], dtype=torch.bool)
            here[torch.from_numpy(np.array(indices))] = True
            inside &= here.reshape([-1 if i == axis else 1 for i in range(gradient.dim())])
        assert gradient[~inside].abs().max() == 0
        assert (gradient[inside] != 0).float().mean() > 0.9


def test_skipped_blocks_get_no_gradient() -> None:
    _, places = built("resnet")
    block = places.blocks[0]
    net = SuperNetwork(places).train()
    net.activate(Subnet(skip=frozenset({block.id})))
    net(torch.randn(4, 3, 8, 8))[0].sum().backward()
    inside = {name for node in block.nodes for name in places.graph.node(node).inputs}
    touched = {name for name, weight in net.named_weights().items() if weight.grad is not None}
    assert not touched & inside
    assert inside & set(net.named_weights())
    assert touched


def test_a_prefix_is_a_view_and_the_rest_a_gather() -> None:
    _, places = built("resnet")
    net = SuperNetwork(places)
    conv = next(n for n in places.graph.nodes if n.op_type == "Conv")
    from rewriters.edits import Keep

    for indices, shares in ((np.arange(4), True), (np.array([0, 2, 5]), False)):
        program = net._compiler.compile([Keep(conv.inputs[1], 0, indices)], net.device)
        part = program.views[conv.inputs[1]].of(net.tensor(conv.inputs[1]))
        assert torch.equal(part, net.tensor(conv.inputs[1])[torch.from_numpy(indices)])
        same = part.untyped_storage().data_ptr() == net.tensor(conv.inputs[1]).untyped_storage().data_ptr()
        assert same is shares


def test_recalibration_leaves_the_training_flag_and_counts_samples() -> None:
    _, places = built("resnet")
    net = SuperNetwork(places).train()
    statistics = net.recalibrate([torch.randn(5, 3, 8, 8), torch.randn(3, 3, 8, 8)], places.minimal())
    assert isinstance(statistics, Statistics)
    assert statistics.count == 8
    assert net.training
    assert net.mode.state == "train"


def test_weights_round_trip_and_refusals() -> None:
    loaded, places = built("vgg")
    net = SuperNetwork(places)
    weights = {name: value + 1 for name, value in net.weights().items()}
    again = SuperNetwork(places, weights=weights)
    assert {n: v.tolist() for n, v in again.weights().items()} == {n: v.tolist() for n, v in weights.items()}
    first = next(iter(weights))
    with pytest.raises(ConfigError, match="belongs to no"):
        SuperNetwork(places, weights={"nothing": weights[first]})
    with pytest.raises(ConfigError, match="has shape"):
        SuperNetwork(places, weights={first: np.zeros((1, 2, 3), np.float32)})
    broken = Graph(**{**vars_of(loaded), "nodes": (unknown(loaded), *loaded.nodes[1:])})
    with pytest.raises(ModelError, match=r"Mystery.*no torch function"):
        SuperNetwork(FixedSpace(broken))


def vars_of(loaded: Graph) -> dict[str, object]:
    import dataclasses

    return {field.name: getattr(loaded, field.name) for field in dataclasses.fields(loaded)}


def unknown(loaded: Graph) -> object:
    import dataclasses

    return dataclasses.replace(loaded.nodes[0], op_type="Mystery")


def test_bf16_gives_float32_outputs_close_to_full_precision() -> None:
    loaded, places = built("resnet")
    feeds = graph.example_inputs(loaded, batch=2)
    net = SuperNetwork(places)
    exact = run_torch(net, feeds)
    net.bf16 = True
    rough = run_torch(net, feeds)
    assert rough[0].dtype == np.float32
    assert 0 < difference(rough, exact) < 0.1
