"""A teacher's answers that are kept are those it gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from onnxnas import graph
from onnxnas.data.torch_batches import TorchBatches
from onnxnas.errors import ConfigError, RunError
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


def test_mirrored_epochs_share_answers(tmp_path: Path) -> None:
    """Trained by kept answers as by a teacher that is asked; one file for two epochs."""
    chosen = tiny.settings(distillation=0.9, strategy="fixed", mirrored=True)
    lessons = Lessons(tmp_path, mirrored=True)
    source = graph.load(graphs.NETWORKS["resnet"]())
    lessons.teach(teacher_of(source), tiny.data(), chosen, seed=3, epoch=0)
    assert lessons.known() == 2
    lessons.teach(teacher_of(source), tiny.data(), chosen, seed=3, epoch=2)
    assert [p.name for p in sorted(tmp_path.iterdir())] == [
        "epoch-0000.safetensors",
        "epoch-0002.safetensors",
    ]
    alone, told = network(), network()
    train(alone, tiny.data(), chosen, directory=None, teacher=teacher_of(source), seed=3)
    train(told, tiny.data(), chosen, directory=None, teacher=_Silent(), lessons=lessons, seed=3)  # type: ignore[arg-type]
    for name, value in alone.weights().items():
        np.testing.assert_allclose(told.weights()[name], value, rtol=0, atol=1e-5, err_msg=name)


def test_answers_of_mirrored_epochs_by_onnx_runtime() -> None:
    """The mean of what the original's file says of a batch and of the batch flipped by hand."""
    chosen, data = tiny.settings(mirrored=True), tiny.data()
    model = graphs.NETWORKS["resnet"]()
    lessons = Lessons(mirrored=True)
    lessons.teach(teacher_of(graph.load(model)), data, chosen, seed=3, epoch=1)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    batches = TorchBatches(data.train, data)
    for epoch in (0, 1):
        for index, (x, _) in enumerate(batches.epoch(chosen.batch_size, seed=3, epoch=epoch, mirrored=True)):
            (name, pictures), *rest = x.items()
            assert not rest
            both = [pictures.numpy(), np.ascontiguousarray(pictures.numpy()[..., ::-1])]
            expected = sum(session.run(None, {name: one})[0] for one in both) / 2
            place = slice(index * chosen.batch_size, (index + 1) * chosen.batch_size)
            found = lessons.of(epoch, place)
            assert found is not None
            np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("resnet", {"augment": False}, "expected pictures that are flipped"),
        ("unet", {"distillation": 0.5}, "expected outputs \\[n, k\\]"),
    ],
)
def test_what_cannot_be_mirrored_is_refused(name: str, changes: dict[str, object], message: str) -> None:
    net = SuperNetwork(FixedSpace(graph.load(graphs.NETWORKS[name]())))
    with pytest.raises(ConfigError, match=message):
        train(net, tiny.data(), tiny.settings(mirrored=True, **changes), directory=None, seed=0)
