"""Losses against their formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper

from onnxnas import graph
from onnxnas.errors import ConfigError
from onnxnas.train.losses import Criterion, Heads, distillation_loss, task_loss
from tests.train import tiny


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def heads_of(op: str, shape: list[object], task: str) -> Heads:
    one = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    made = helper.make_graph([helper.make_node(op, ["x"], ["y"])], "g", [one], [out])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return Heads.of(graph.load(model), task)


@pytest.mark.parametrize(
    ("op", "shape", "task", "kind"),
    [
        ("Relu", ["n", 10], "classification", "scores"),
        ("Softmax", ["n", 10], "classification", "probabilities"),
        ("Relu", ["n", 10], "distillation", "scores"),
        ("Relu", ["n", 10], "regression", "dense"),
        ("Relu", ["n", 3, 8, 8], "segmentation", "scores"),
        ("Relu", ["n", 3, 8, 8], "distillation", "dense"),
        ("Relu", ["n", 1], "distillation", "dense"),
    ],
)
def test_kinds_of_outputs(op: str, shape: list[object], task: str, kind: str) -> None:
    assert heads_of(op, shape, task).kinds == (kind,)


def test_a_metric_of_classes_says_that_outputs_are_scores() -> None:
    one = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8, 8, 3])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 8, 8, 3])
    made = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [one], [out])
    loaded = graph.load(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    assert Heads.of(loaded, "distillation", "psnr", 3).kinds == ("dense",)
    heads = Heads.of(loaded, "distillation", "miou", 3)
    assert heads.kinds == ("scores",)
    s, t = torch.randn(2, 2, 8, 8, 3, generator=torch.Generator().manual_seed(0))
    rows = Heads(("scores",))
    wanted = distillation_loss(rows, 2.0)([s.reshape(-1, 3)], [t.reshape(-1, 3)])
    assert distillation_loss(heads, 2.0)([s], [t]).item() == pytest.approx(wanted.item(), rel=1e-5)


def test_distillation_of_scores_is_kl_times_t_squared() -> None:
    rng = np.random.default_rng(0)
    s, t = rng.normal(size=(5, 7)), rng.normal(size=(5, 7))
    p, q = softmax(t / 3), softmax(s / 3)
    wanted = 9 * (p * (np.log(p) - np.log(q))).sum(1).mean()
    loss = distillation_loss(Heads(("scores",)), 3.0)
    assert loss([torch.from_numpy(s)], [torch.from_numpy(t)]).item() == pytest.approx(wanted, rel=1e-6)
    assert loss([torch.from_numpy(t)], [torch.from_numpy(t)]).item() == pytest.approx(0, abs=1e-12)


def test_probabilities_are_as_good_as_scores() -> None:
    rng = np.random.default_rng(0)
    s, t = rng.normal(size=(5, 7)), rng.normal(size=(5, 7))
    a = distillation_loss(Heads(("scores",)), 2.0)([torch.from_numpy(s)], [torch.from_numpy(t)])
    both = [torch.from_numpy(softmax(s))], [torch.from_numpy(softmax(t))]
    assert distillation_loss(Heads(("probabilities",)), 2.0)(*both).item() == pytest.approx(
        a.item(), rel=1e-6
    )
    y = torch.tensor([0, 1, 2, 3, 4])
    loss = task_loss("cross_entropy", Heads(("probabilities",)))(both[0], y)
    wanted = -np.log(softmax(s)[np.arange(5), y.numpy()]).mean()
    assert loss.item() == pytest.approx(wanted, rel=1e-6)


def test_dense_distillation_does_not_depend_on_the_unit() -> None:
    rng = np.random.default_rng(0)
    s, t = torch.from_numpy(rng.normal(size=(2, 3, 4, 4))), torch.from_numpy(rng.normal(size=(2, 3, 4, 4)))
    loss = distillation_loss(Heads(("dense",)), 2.0)
    assert loss([s], [t]).item() == pytest.approx(((s - t) ** 2).mean().item() / t.numpy().var(), rel=1e-5)
    assert loss([s * 255], [t * 255]).item() == pytest.approx(loss([s], [t]).item(), rel=1e-5)


def test_segmentation_ignores_label_255() -> None:
    scores = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    y = torch.zeros(2, 4, 4, dtype=torch.int64)
    y[:, :, 2:] = 255
    found = task_loss("cross_entropy", Heads(("scores",)))([scores], y)
    wanted = -np.log(softmax(scores.numpy())[:, 0, :, :2]).mean()
    assert found.item() == pytest.approx(wanted, rel=1e-5)


def test_labels_and_teacher_are_weighed() -> None:
    loaded = tiny.places("vgg").graph
    s, t = torch.randn(4, 10), torch.randn(4, 10)
    y = torch.tensor([0, 1, 2, 3])
    parts = [Criterion(loaded, tiny.data(), "auto", w, 2.0)([s], y, [t]).item() for w in (0.0, 1.0, 0.25)]
    assert parts[2] == pytest.approx(0.75 * parts[0] + 0.25 * parts[1], rel=1e-5)
    assert parts[0] == pytest.approx(torch.nn.functional.cross_entropy(s, y).item(), rel=1e-5)
    unlabelled = Criterion(loaded, tiny.data(labels=False), "auto", 0.0, 2.0)
    assert unlabelled.needs_teacher
    assert unlabelled([s], None, [t]).item() == pytest.approx(parts[1], rel=1e-5)
    with pytest.raises(ConfigError, match="neither labels nor a teacher"):
        unlabelled([s], None, None)


def test_a_users_loss_and_unknown_ones() -> None:
    loss = task_loss(f"{__file__}:absolute", Heads(("dense",)))
    assert loss([torch.tensor([1.0, -3.0])], torch.tensor(0)).item() == 4.0
    with pytest.raises(ConfigError, match="cross_entropy"):
        task_loss("crossentropy", Heads(("dense",)))


def absolute(outputs: list[torch.Tensor], y: torch.Tensor) -> torch.Tensor:
    return outputs[0].abs().sum()
