"""Several teachers that answer as one."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from onnxnas import graph
from onnxnas.testing import graphs
from onnxnas.train import Ensemble, Lessons, finetune, teacher_of
from tests.train import tiny


def altered(seed: int) -> onnx.ModelProto:
    """The network with its kernels changed by a tenth."""
    model = graphs.NETWORKS["resnet"]()
    rng = np.random.default_rng(seed)
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.ndim > 1 and value.dtype == np.float32:
            value = value * (1 + 0.1 * rng.normal(size=value.shape)).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    return model


def answers(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """What ONNX Runtime says."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x})
    return np.asarray(found)


def ensemble(models: list[onnx.ModelProto]) -> Ensemble:
    return Ensemble([teacher_of(graph.load(model)) for model in models])


def test_it_says_the_mean_of_what_its_members_say() -> None:
    models = [altered(seed) for seed in range(3)]
    together = ensemble(models)
    x = tiny.data().val.x["x"][:7]
    (found,) = together({"x": torch.from_numpy(x)})
    each = [answers(model, x) for model in models]
    assert min(np.abs(each[0] - other).max() for other in each[1:]) > 1e-2
    np.testing.assert_allclose(found.numpy(), np.mean(each, axis=0), rtol=1e-4, atol=1e-5)


def test_its_answers_can_be_kept() -> None:
    """What lessons hold of an epoch is the mean of what they hold of the members."""
    models = [altered(seed) for seed in range(2)]

    def told(teacher: Any) -> np.ndarray:
        lessons = Lessons()
        lessons.teach(teacher, tiny.data(), tiny.settings(), seed=3, epoch=0)
        (found,) = lessons.of(0, slice(0, 96)) or ()
        return found.numpy()

    each = [told(teacher_of(graph.load(model))) for model in models]
    np.testing.assert_allclose(told(ensemble(models)), np.mean(each, axis=0), rtol=1e-5, atol=1e-6)


def test_all_members_compute_in_the_same_numbers() -> None:
    together = ensemble([altered(0), altered(1)])
    together.bf16 = True
    assert together.bf16
    assert all(member.bf16 for member in together.members)


def test_without_members() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Ensemble([])


def test_without_labels_quality_is_agreement_with_the_original_and_not_with_the_teacher() -> None:
    """The network itself is the original, so nothing differs before training, whoever teaches."""
    source = graph.load(graphs.NETWORKS["resnet"]())
    data, settings = tiny.data(labels=False), tiny.settings(epochs=0.1)
    other = teacher_of(graph.load(altered(5)))
    _scramble(other)
    by_original = finetune(source, data, settings, teacher=other, original=teacher_of(source), seed=3)
    by_teacher = finetune(source, data, settings, teacher=other, seed=3)
    itself = finetune(source, data, settings, teacher=teacher_of(source), seed=3)
    assert by_original.before == itself.before
    assert by_teacher.before < itself.before - 10


def _scramble(teacher: torch.nn.Module) -> None:
    """Answer with the classes in another order."""
    name = "forward"
    plain = teacher.forward
    setattr(teacher, name, lambda *x: tuple(output.roll(1, dims=1) for output in plain(*x)))
