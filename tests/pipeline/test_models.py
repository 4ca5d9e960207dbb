"""inspect, check, extract and the prepared graph, against ONNX Runtime itself."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

import rewriters
from onnxnas import analysis, data, graph, space
from onnxnas.errors import ConfigError, ModelError
from onnxnas.pipeline import prepared
from onnxnas.pipeline.check import check, difference
from onnxnas.pipeline.extract import extract
from onnxnas.pipeline.inspect import inspect
from onnxnas.supernet import folded
from onnxnas.testing import graphs
from onnxnas.types import Subnet


def run(model: onnx.ModelProto, x: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return np.asarray(session.run(None, {"x": x})[0])


def images(n: int = 4) -> NDArray[np.float32]:
    return np.random.default_rng(9).standard_normal((n, 3, graphs.SIZE, graphs.SIZE)).astype(np.float32)


def test_inspect_document() -> None:
    body = json.loads(json.dumps(inspect(graphs.resnet()).to_json()))
    assert body["schema"] == 1
    assert body["model"]["inputs"] == [{"name": "x", "shape": ["N", 3, 8, 8], "dtype": "float32"}]
    assert body["model"]["outputs"][0]["name"] == "y"
    assert len(body["model"]["sha256"]) == 64
    # stem, 2 blocks of 8 channels, 1 of 16 after a strided one, each counted by hand
    stem, same, narrow = 64 * 27 * 8, 2 * 64 * 72 * 8, 2 * 16 * 144 * 16
    strided = 16 * 72 * 16 + 16 * 144 * 16 + 16 * 8 * 16
    assert body["macs"] == stem + 2 * same + strided + narrow + 160
    assert [block["macs"] for block in body["blocks"]] == [same, same, narrow]
    assert [block["chain"] for block in body["blocks"]] == [0, 0, 1]
    fields = {"id", "name", "entry", "exit", "nodes", "kind", "chain", "macs", "params"}
    assert body["blocks"][0].keys() == fields
    assert body["width_groups"][0].keys() == {"id", "name", "size", "choices", "producers", "consumers"}
    assert [block["name"] for block in body["blocks"]] == ["layer1.0", "layer1.1", "layer2.1"]
    assert all(group["size"] == max(group["choices"]) for group in body["width_groups"])
    assert any("graph output" in item["reason"] for item in body["frozen"])
    choices = (
        [2] * 3
        + [len(g["choices"]) for g in body["width_groups"]]
        + [len(k["choices"]) for k in body["kernels"]]
    )
    assert body["log10_subnetworks"] == pytest.approx(sum(map(math.log10, choices)))


def test_inspect_needs_no_torch(tmp_path: Path, root: Path) -> None:
    onnx.save(graphs.resnet(), tmp_path / "m.onnx")
    code = (
        "import sys; from onnxnas.cli import main; status = main(['inspect', sys.argv[1], '--json']); "
        "heavy = [m for m in ('torch', 'onnxruntime', 'openvino', 'pymoo', 'optuna') if m in sys.modules]; "
        "print(status, heavy, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "m.onnx")],
        capture_output=True,
        text=True,
        cwd=root,
        timeout=60,
    )
    assert done.stderr.strip() == "0 []"
    assert json.loads(done.stdout)["model"]["path"] == str(tmp_path / "m.onnx")


@pytest.mark.parametrize("name", ["resnet", "mbconv", "vit"])
def test_check_holds(name: str) -> None:
    body = check(graphs.NETWORKS[name](0), samples=4)
    assert body["ok"], body["problems"]
    assert body["identity"]["max_rel"] <= 1e-5
    assert body["torch"]["max_rel"] <= 1e-4
    assert len(body["subnets"]) >= 3
    for row in body["subnets"]:
        assert row["runs"]
        assert row["error"] is None
        assert row["max_rel"] <= 1e-4
        assert 0 < row["macs_ratio"] < 1


def test_check_says_what_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxnas.supernet import numeric

    honest = numeric.run

    def wrong(*given: Any) -> list[NDArray[Any]]:
        return [output + 0.1 for output in honest(*given)]

    monkeypatch.setattr(numeric, "run", wrong)
    body = check(graphs.resnet(), samples=1)
    assert not body["ok"]
    assert any(problem.startswith("torch: max_rel is") for problem in body["problems"])
    assert all(row["error"] for row in body["subnets"])
    assert body["identity"]["max_rel"] <= 1e-5


def test_difference() -> None:
    a, b = np.array([1.0, -4.0]), np.array([1.5, -4.0])
    assert difference([a], [b]) == {"max_abs": 0.5, "max_rel": 0.125}
    assert difference([b, a], [b, b])["max_rel"] == 0.125  # the worst output counts
    near_zero = np.array([1e-5]), np.array([1.1e-5])  # a score of a detector that sees nothing
    far = np.array([100.0]), np.array([100.01])
    assert difference([near_zero[0]], [near_zero[1]])["max_rel"] == pytest.approx(1 / 11)
    both = difference([near_zero[0], far[0]], [near_zero[1], far[1]])
    assert both["max_rel"] == pytest.approx(0.01 / 100.01)
    assert both["max_abs"] == pytest.approx(0.01)
    assert difference([np.array([np.nan])], [np.array([np.nan])])["max_rel"] == 0.0
    assert difference([np.array([np.nan])], [np.array([1.0])])["max_rel"] == math.inf
    assert difference([a], [a[:1]])["max_rel"] == math.inf
    assert difference([a], [a, a])["max_rel"] == math.inf
    assert difference(None, [a])["max_rel"] is None


def test_extract() -> None:
    model = graphs.resnet()
    x = images()
    np.testing.assert_allclose(run(extract(model), x), run(model, x), rtol=1e-5, atol=1e-6)
    block = inspect(model).space.blocks[0].id
    skipped = extract(model, {"skip": [block], "model_sha256": graph.load(model).digest})
    convolutions = [sum(n.op_type == "Conv" for n in m.graph.node) for m in (model, skipped)]
    assert convolutions[0] - convolutions[1] == 2
    assert run(skipped, x).shape == (4, 10)
    smaller = extract(model, "min")
    assert run(smaller, x).shape == (4, 10)
    assert len(smaller.SerializeToString()) < len(skipped.SerializeToString())
    assert extract(model, "random:3").SerializeToString() == extract(model, "random:3").SerializeToString()


def test_extract_refuses(tmp_path: Path) -> None:
    model = graphs.resnet()
    (tmp_path / "s.json").write_text('{"skip": ["b99"]}')
    for subnet, says in (
        ("big", "no such file; give max, min, random:SEED"),
        ("random:x", "expected a whole number"),
        (str(tmp_path / "s.json"), "b99"),
        ({"skips": []}, "unknown key 'skips'"),
        ({"model_sha256": "0" * 64}, "made for model 000000000000"),
        ({"width": {"g0": 999}}, "g0"),
        ({"width": [1]}, "not a sub-network"),
    ):
        with pytest.raises(ConfigError, match=says):
            extract(model, subnet)


def dataset(model: onnx.ModelProto, place: Path) -> data.DataSet:
    np.savez(place / "d.npz", x=images(64), y=np.arange(64) % 10)
    loaded = graph.load(model)
    return data.load(str(place / "d.npz"), [loaded.tensors["x"]], seed=0)


def test_folded_batchnorm_comes_back_and_changes_nothing(tmp_path: Path) -> None:
    whole = graphs.resnet()
    bare = rewriters.fold_all(whole)
    assert isinstance(bare, rewriters.Rewritten)
    loaded = graph.load(bare.model)
    nodes = folded(loaded)
    assert len(nodes) == sum(n.op_type == "BatchNormalization" for n in whole.graph.node)
    again = prepared.with_batchnorm(loaded, nodes, dataset(bare.model, tmp_path), seed=0)
    norms = [n for n in again.nodes if n.op_type == "BatchNormalization"]
    assert len(norms) == len(nodes)
    x = images()
    np.testing.assert_allclose(run(again.model, x), run(whole, x), rtol=1e-4, atol=1e-5)
    # the statistics are those of the convolution's output over the training images, counted independently
    first = again.producer(norms[0].inputs[0])
    assert first is not None
    probe = onnx.ModelProto()
    probe.CopyFrom(again.model)
    probe.graph.output.append(
        onnx.helper.make_tensor_value_info(first.outputs[0], onnx.TensorProto.FLOAT, None)
    )
    session = onnxruntime.InferenceSession(probe.SerializeToString())
    split = dataset(bare.model, tmp_path).train
    values = np.asarray(session.run([first.outputs[0]], {"x": split.x["x"]})[0])
    mean = again.initializers[norms[0].inputs[3]]
    var = again.initializers[norms[0].inputs[4]]
    np.testing.assert_allclose(mean, values.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(var, values.var((0, 2, 3)), rtol=1e-4, atol=1e-5)
    # every filter has the norm of a fresh one: folding had made them small or large
    weights = [again.initializers[again.node(name).inputs[1]] for name in nodes]
    lengths = np.concatenate([np.linalg.norm(w.reshape(len(w), -1), axis=1) for w in weights])
    np.testing.assert_allclose(lengths, np.sqrt(2), rtol=1e-5)


@pytest.mark.parametrize("name", ["resnet", "vit", "bert"])
def test_networks_with_norms_are_left_alone(name: str) -> None:
    assert folded(graph.load(graphs.NETWORKS[name](0))) == ()


def test_no_batchnorm_behind_the_last_convolution() -> None:
    bare = rewriters.fold_all(graphs.unet())
    assert isinstance(bare, rewriters.Rewritten)
    loaded = graph.load(bare.model)
    names = set(folded(loaded))
    last = loaded.producer(loaded.outputs[0])
    assert last is not None
    assert last.op_type == "Conv"
    assert names
    assert last.name not in names


@pytest.mark.parametrize("name", ["resnet", "resnext", "mbconv", "densenet", "shufflenet", "vit"])
def test_sorting_changes_nothing_and_makes_prefixes(name: str) -> None:
    model = graphs.NETWORKS[name](0)
    loaded = graph.load(model)
    plain = space.build(analysis.analyse(loaded))
    sorted_ = prepared.ordered(loaded, ("depth", "width", "kernel"))
    x = images()
    np.testing.assert_allclose(run(sorted_.graph.model, x), run(model, x), rtol=1e-4, atol=1e-5)
    assert sorted_.graph.digest == loaded.digest
    for group in sorted_.groups:
        if not group.ordered:
            assert list(sorted_.order[group.id]) == list(range(group.size))
    # the same sub-network of both spaces computes the same
    rng = np.random.default_rng(2)
    for _ in range(3):
        subnet = plain.random(rng)
        a = graph.rewrite(plain.graph, plain.plan(subnet))
        b = graph.rewrite(sorted_.graph, sorted_.plan(subnet))
        np.testing.assert_allclose(run(a, x), run(b, x), rtol=1e-3, atol=1e-4)


def test_a_model_that_cannot_be_loaded(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"not a model")
    for function in (inspect, check, extract):
        with pytest.raises(ModelError, match="not an ONNX model"):
            function(tmp_path / "m.onnx")
    assert Subnet() == inspect(graphs.vgg()).space.maximal()
