"""The demo model as committed: its card tells the truth and its data load."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from onnxnas import data
from onnxnas.types import TensorInfo

MODELS = Path(__file__).resolve().parents[2] / "models"


@pytest.fixture(scope="module")
def card() -> str:
    return (MODELS / "digits_resnet.md").read_text()


def load() -> data.DataSet:
    image = TensorInfo("x", np.dtype(np.float32), (1, 1, 8, 8), ("batch", 1, 8, 8))
    scores = TensorInfo("output", np.dtype(np.float32), (1, 10), ("batch", 10))
    return data.load(MODELS / "digits.yaml", [image], outputs=[scores])


def test_card_names_this_file(card: str) -> None:
    content = (MODELS / "digits_resnet.onnx").read_bytes()
    assert hashlib.sha256(content).hexdigest() in card
    assert f"{len(content):,} bytes" in card
    assert len(content) < 1_000_000


def test_accuracy_is_the_cards(card: str) -> None:
    found = load()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(MODELS / "digits_resnet.onnx", options)
    stated = re.search(r"top-1 ([\d.]+) % on val, ([\d.]+) % on test", card)
    assert stated is not None
    for split, percent in ((found.val, stated[1]), (found.test, stated[2])):
        assert split is not None
        meter = data.get_metric("top1").start()
        for x, y in data.batches(split, found, 64):
            assert y is not None
            meter.update(session.run(None, x), y)
        assert meter.compute() == pytest.approx(float(percent), abs=0.006)


def test_data_are_scikit_learns_digits_once_each() -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    found = load()
    assert found.test is not None
    parts = (found.train, found.val, found.test)
    ours = sorted(
        (x.tobytes(), int(y)) for p in parts for x, y in zip(p.x["x"], np.asarray(p.y), strict=True)
    )
    theirs = sorted(
        (x.astype(np.uint8).tobytes(), int(y)) for x, y in zip(digits.images, digits.target, strict=True)
    )
    assert ours == theirs
    assert found.notes == ()
    for part in parts:
        counts = np.bincount(np.asarray(part.y), minlength=10)
        assert np.ptp(counts) <= 0.06 * len(np.asarray(part.y))


def test_script_makes_these_splits_and_this_network(card: str) -> None:
    spec = importlib.util.spec_from_file_location(
        "tools_train_digits", MODELS.parent / "tools" / "train_digits.py"
    )
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for name, (x, y) in script.split_digits().items():
        with np.load(MODELS / f"digits_{name}.npz") as stored:
            assert np.array_equal(stored["x"], x)
            assert np.array_equal(stored["y"], y)
    assert (MODELS / "digits.yaml").read_text() == script.CONFIG
    parameters = {k: tuple(p.shape) for k, p in script.network().named_parameters()}
    stored = {t.name: tuple(t.dims) for t in onnx.load(MODELS / "digits_resnet.onnx").graph.initializer}
    assert parameters.items() <= stored.items()
    assert f"{sum(int(np.prod(s)) for s in parameters.values()):,}" in card


def test_batch_norm_is_kept_and_the_batch_is_free() -> None:
    model = onnx.load(MODELS / "digits_resnet.onnx")
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("BatchNormalization") == kinds.count("Conv") == 15
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    kernels = [a.ints for n in model.graph.node for a in n.attribute if a.name == "kernel_shape"]
    assert [5, 5] in [list(k) for k in kernels]
