"""A teacher's answers that are kept are those it gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxnas import graph
from onnxnas.errors import RunError
from onnxnas.supernet import FixedSpace, SuperNetwork
from onnxnas.testing import graphs
from onnxnas.train import Lessons, finetune, teacher_of, train
from tests.train import tiny


def network() -> SuperNetwork:
    return SuperNetwork(FixedSpace(graph.load(graphs.NETWORKS["resnet"]())))


def taught(place: Path | None, epochs: int, **changes: object) -> Lessons:
    lessons = Lessons(place)
    teacher = teacher_of(graph.load(graphs.NETWORKS["resnet"]()))
    for epoch in range(epochs):
        lessons.teach(teacher, tiny.data(), tiny.settings(**changes), seed=3, epoch=epoch)
    return lessons


@pytest.mark.parametrize(
    ("labels", "changes"),
    [
        (True, {}),
        (False, {}),
        (True, {"accumulate": 2}),
        (False, {"accumulate": 2}),
        (True, {"mixed": 0.6}),
        (True, {"mixed": 0.6, "distinct_epochs": 1}),
    ],
)
def test_training_by_kept_answers_is_training_by_the_teacher(
    tmp_path: Path, labels: bool, changes: dict[str, float]
) -> None:
    """The same weights to the last bit; a batch worked on in parts gives the teacher other shapes, so nearly so."""
    chosen = tiny.settings(distillation=0.9, strategy="fixed", **changes)
    teacher = teacher_of(graph.load(graphs.NETWORKS["resnet"]()))
    lessons = taught(tmp_path, int(changes.get("distinct_epochs", 3)), mixed=changes.get("mixed", 0.0))
    alone, told = network(), network()
    data = tiny.data(labels=labels)
    train(alone, data, chosen, directory=None, teacher=teacher, seed=3)
    train(told, data, chosen, directory=None, teacher=_Silent(), lessons=lessons, seed=3)  # type: ignore[arg-type]
    tolerance = 1e-5 if "accumulate" in changes else 0.0
    for name, value in alone.weights().items():
        np.testing.assert_allclose(told.weights()[name], value, rtol=0, atol=tolerance, err_msg=name)
    assert any(
        not np.array_equal(value, network().weights()[name]) for name, value in alone.weights().items()
    )


class _Silent:
    """A teacher that must not be asked."""

    bf16 = False

    def __call__(self, *_: object) -> None:
        raise AssertionError("the teacher was asked though its answers are there")


def test_beyond_the_kept_epochs_the_teacher_is_asked(tmp_path: Path) -> None:
    """Two of three epochs kept: as with none kept."""
    chosen = tiny.settings(distillation=0.9, strategy="fixed")
    source = graph.load(graphs.NETWORKS["resnet"]())
    plain = finetune(source, tiny.data(), chosen, teacher=teacher_of(source), seed=3)
    some = finetune(
        source, tiny.data(), chosen, teacher=teacher_of(source), lessons=taught(tmp_path, 2), seed=3
    )
    for name, value in plain.weights.items():
        np.testing.assert_array_equal(some.weights[name], value, err_msg=name)


def test_lessons_of_another_seed_are_other_lessons(tmp_path: Path) -> None:
    """The answers belong to the images, crops and flips of (seed, epoch)."""
    lessons = taught(tmp_path, 2)
    (first,), (second,) = lessons.of(0, slice(0, 32)) or (), lessons.of(1, slice(0, 32)) or ()
    assert not np.array_equal(first.numpy(), second.numpy())
    (again,) = Lessons(tmp_path).of(0, slice(0, 32)) or ()
    np.testing.assert_array_equal(again.numpy(), first.numpy())


def test_what_is_not_there(tmp_path: Path) -> None:
    """Neither an epoch that nobody asked about, nor samples beyond a short one; a damaged file is an error."""
    lessons = Lessons(tmp_path)
    teacher = teacher_of(graph.load(graphs.NETWORKS["resnet"]()))
    lessons.teach(teacher, tiny.data(), tiny.settings(), seed=3, epoch=0, batches=2)
    assert lessons.of(1, slice(0, 32)) is None
    assert lessons.of(0, slice(64, 96)) is None
    assert lessons.of(0, slice(32, 64)) is not None
    (tmp_path / "epoch-0000.safetensors").write_bytes(b"cut off")
    with pytest.raises(RunError, match=r"epoch-0000\.safetensors: not readable"):
        Lessons(tmp_path).of(0, slice(0, 32))
