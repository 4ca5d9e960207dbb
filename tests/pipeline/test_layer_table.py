"""Layers timed on their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from onnxnas import analysis, graph, measure, space
from onnxnas.pipeline import config, hints, runner
from onnxnas.pipeline.layer_table import LayerTable
from onnxnas.testing import graphs
from onnxnas.types import Subnet
from tests.pipeline.test_optimize import settings


@pytest.fixture(scope="module")
def places() -> space.SearchSpace:
    return space.build(analysis.analyse(graph.load(graphs.resnet())))


@pytest.fixture(scope="module")
def table(places: space.SearchSpace) -> LayerTable:
    feeds = {"x": np.zeros((1, 3, graphs.SIZE, graphs.SIZE), np.float32)}
    with measure.Measurer(measure.Target(), graphs.resnet().SerializeToString(), feeds) as measuring:
        return LayerTable.timed(places, measuring, seconds=3.0)


def test_every_layer_of_the_original_has_a_time(places: space.SearchSpace, table: LayerTable) -> None:
    layers = list(places.layers(Subnet()))
    assert sum(macs for _, _, macs in layers) == places.cost(Subnet()).macs
    assert {node for node, _, macs in layers if macs} == set(table.known)
    assert all(0 < ms < 100 for shapes in table.known.values() for ms in shapes.values())


def test_a_sum_over_what_is_left(places: space.SearchSpace, table: LayerTable) -> None:
    """Skipping a block leaves out its layers; shapes that were not met count by multiply-accumulates."""
    block = places.blocks[0]
    whole, without = table.ms(Subnet()), table.ms(Subnet(skip=frozenset({block.id})))
    own = sum(ms for node in block.nodes for ms in list(table.known.get(node, {}).values())[:1])
    assert own > 0
    assert without == pytest.approx(whole - own)
    only = {node: dict(list(shapes.items())[:1]) for node, shapes in table.known.items()}
    smallest = places.minimal()
    told = sum(
        ms * macs / next(m for n, _, m in places.layers(Subnet()) if n == node)
        for node, _, macs in places.layers(smallest)
        for ms in list(only[node].values())[:1]
    )
    assert LayerTable(places, only).ms(smallest) == pytest.approx(told)


def test_a_layer_alone_computes_what_it_does_inside(places: space.SearchSpace) -> None:
    """The same weights and attributes: its output for its input in the whole sub-network is that tensor there."""
    subnet = places.minimal()
    model = graph.rewrite(places.graph, places.plan(subnet))
    feeds = {
        "x": np.random.default_rng(0).standard_normal((1, 3, graphs.SIZE, graphs.SIZE)).astype(np.float32)
    }
    kinds = set()
    for node, shapes, macs in places.layers(subnet):
        alone = graph.single_node(model, places.graph, node, shapes)
        assert alone is not None
        assert macs
        content, inputs = alone.content, alone.feeds
        (own,) = onnx.load_from_string(content).graph.node
        inside = _values(model, feeds, [*inputs, own.output[0]])
        session = onnxruntime.InferenceSession(content)
        assert {name: array.shape for name, array in inputs.items()} == {
            name: inside[name].shape for name in inputs
        }
        (found,) = session.run(None, {name: inside[name] for name in inputs})
        np.testing.assert_allclose(found, inside[own.output[0]], rtol=1e-4, atol=1e-5)
        kinds.add(own.op_type)
    assert {"Conv", "Gemm"} <= kinds


def _values(model: onnx.ModelProto, feeds: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Any tensors of a model."""
    wider = onnx.ModelProto()
    wider.CopyFrom(model)
    own = {output.name for output in wider.graph.output} | set(feeds)
    wider.graph.output.extend(onnx.helper.make_empty_tensor_value_info(n) for n in names if n not in own)
    session = onnxruntime.InferenceSession(wider.SerializeToString())
    wanted = [name for name in names if name not in feeds]
    return {**feeds, **dict(zip(wanted, session.run(wanted, feeds), strict=True))}


def test_in_8_bits_all_layers_gain_alike(places: space.SearchSpace, table: LayerTable) -> None:
    subnet = places.minimal()
    rounded = subnet.rounded({"*": "int8"})
    told = hints.told(places, table.known, {"int8": 0.4})
    assert told["latency_ms"].of(rounded) == pytest.approx(0.4 * told["latency_ms"].of(subnet))
    assert told["throughput"].of(rounded) == pytest.approx(told["throughput"].of(subnet) / 0.4)
    assert told["bytes"].of(rounded) == pytest.approx(places.cost(subnet).params / 4)
    assert told["macs"].of(rounded) == told["macs"].of(subnet)
    plain = hints.told(places, table.known)
    assert plain["latency_ms"].of(subnet) == told["latency_ms"].of(subnet) == table.ms(subnet)


def test_a_search_on_predictors_uses_it(tiny_files: Path, tmp_path: Path) -> None:
    """The table is made once; latency is predicted from it and costs are counted."""
    body = settings(tiny_files)
    search = {**body["search"], "algorithm": "concurrent", "max_trials": 26, "population": 9}  # type: ignore[dict-item]
    flags = {**body, "search": search, "objectives": ["latency", "macs"], "output": str(tmp_path / "run")}
    runner.begin(config.resolve(flags), last="search")
    written = (tmp_path / "run" / "layers.json").read_bytes()
    assert sum(map(len, json.loads(written)["ms"].values())) > 10
    told = json.loads((tmp_path / "run" / "predictors.json").read_text())["rounds"][0]["objectives"]
    assert told["latency_ms"]["predictor"] == "transferred gp"
    assert told["macs"]["predictor"] == "exact"
    assert told["macs"]["mape"] == 0
    runner.proceed(tmp_path / "run", stage="search", redo=True)
    assert (tmp_path / "run" / "layers.json").read_bytes() == written


def test_what_8_bits_gain_is_measured_once(tiny_files: Path, tmp_path: Path) -> None:
    body = settings(tiny_files)
    search = {**body["search"], "algorithm": "concurrent", "max_trials": 12, "population": 9}  # type: ignore[dict-item]
    flags = {**body, "search": search, "objectives": ["latency", "macs"], "precision": ["fp32", "int8"]}
    runner.begin(config.resolve({**flags, "output": str(tmp_path / "run")}), last="search")
    ratios = json.loads((tmp_path / "run" / "layers.json").read_text())["ratios"]
    assert set(ratios) == {"int8"}
    assert 0.1 < ratios["int8"] < 5
