"""Metrics against figures worked out by hand, and scikit-learn where it has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxnas.data.metrics import Metric, get_metric, ranks_classes
from onnxnas.errors import ConfigError, DataError

SCORES = np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.4, 0.5, 0.1]], np.float32)
LABELS = np.array([1, 1, 0, 0])


def test_topk() -> None:
    # highest: 1 0 2 1, so one of four; two highest: {1,2} {0,1} {2,1} {1,0}, so three of four
    assert get_metric("top1").evaluate(SCORES, LABELS) == 25.0
    assert get_metric("top2").evaluate(SCORES, LABELS) == 75.0
    assert get_metric("top3").evaluate(SCORES, LABELS) == 100.0
    assert get_metric("top1").evaluate([SCORES, SCORES * 0], LABELS) == 25.0


def test_ties_go_to_the_lower_class() -> None:
    equal = np.ones((4, 3))
    assert get_metric("top1").evaluate(equal, np.array([0, 1, 2, 0])) == 50.0
    assert get_metric("top2").evaluate(equal, np.array([0, 1, 2, 0])) == 75.0


def test_nan_is_wrong() -> None:
    scores = SCORES.copy()
    scores[0, 0] = np.nan  # the only right one
    assert get_metric("top1").evaluate(scores, LABELS) == 0.0
    assert get_metric("top3").evaluate(scores, LABELS) == 75.0
    assert get_metric("agreement").evaluate(scores, SCORES) == 75.0
    assert get_metric("r2").evaluate(scores, SCORES) == -np.inf
    assert get_metric("psnr").evaluate(scores, SCORES) == -np.inf


def test_scores_with_ones_at_the_end() -> None:
    assert get_metric("top1").evaluate(SCORES[:, :, None, None], LABELS) == 25.0


def test_f1_is_scikit_learns(rng: np.random.Generator) -> None:
    from sklearn.metrics import f1_score

    scores, labels = rng.normal(size=(200, 5)), rng.integers(0, 5, 200)
    expected = 100 * f1_score(labels, scores.argmax(1), average="macro")
    assert get_metric("f1").evaluate(scores, labels) == pytest.approx(expected)


def test_miou_by_hand() -> None:
    labels = np.array([[[0, 0], [1, 255]]])
    predicted = np.array([[[0, 1], [1, 1]]])  # class 0: 1 of 2; class 1: 1 of 2; class 2 absent; 255 ignored
    scores = np.moveaxis(np.eye(3)[predicted], -1, 1)
    assert get_metric("miou").evaluate(scores, labels) == pytest.approx(50.0)
    assert get_metric("miou").evaluate(np.moveaxis(scores, 1, -1), labels) == pytest.approx(50.0)


def test_psnr_by_hand() -> None:
    target = np.zeros((2, 1, 2, 2))
    output = target.copy()
    output[0] = 0.1  # 20 dB
    output[1] = 0.01  # 40 dB
    assert get_metric("psnr").evaluate(output, target) == pytest.approx(30.0)
    assert get_metric("psnr255").evaluate(output * 255, target) == pytest.approx(30.0)
    assert get_metric("psnr").unit == "dB"


def test_r2_is_scikit_learns(rng: np.random.Generator) -> None:
    from sklearn.metrics import r2_score

    target = rng.normal(3, 2, 300)
    output = target + rng.normal(0, 0.5, 300)
    got = get_metric("r2").evaluate(output[:, None], target[:, None])
    assert got == pytest.approx(100 * r2_score(target, output))
    assert get_metric("r2").evaluate(target, target) == 100.0


def test_fidelity() -> None:
    other = SCORES[[0, 1, 2, 0]]  # the last row's highest is 1, as before
    assert get_metric("fidelity").evaluate([other], [SCORES]) == 100.0
    assert get_metric("fidelity").evaluate([SCORES[::-1]], [SCORES]) == 50.0  # 1 2 0 1 against 1 0 2 1
    dense = np.arange(8.0).reshape(1, 2, 2, 2)
    assert get_metric("fidelity").evaluate([dense], [dense]) == 100.0
    assert get_metric("fidelity").evaluate([dense * 0 + 3.5], [dense]) == pytest.approx(0.0)


@pytest.mark.parametrize("name", ["top1", "top2", "f1", "psnr", "r2", "fidelity", "agreement", "miou"])
def test_in_batches_as_at_once(name: str, rng: np.random.Generator) -> None:
    outputs = rng.normal(size=(50, 4, 3, 3) if name in ("psnr", "miou") else (50, 4))
    if name in ("top1", "top2", "f1"):
        targets = rng.integers(0, 4, 50)
    elif name == "miou":
        targets = rng.integers(0, 4, (50, 3, 3))
    else:
        targets = outputs + rng.normal(0, 0.5, outputs.shape)
    metric = get_metric(name)
    meter = metric.start()
    for start in range(0, 50, 16):
        meter.update([outputs[start : start + 16]], targets[start : start + 16])
    assert meter.compute() == pytest.approx(metric.evaluate([outputs], targets))
    assert metric.start().compute is not meter.compute


def test_users_metric(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "class Negative:\n"
        "    name, unit = 'negative', 'm'\n"
        "    def start(self):\n        raise RuntimeError\n"
        "    def evaluate(self, outputs, targets):\n        return -1.0\n"
        "def worst(outputs, targets):\n    return -abs(outputs - targets).max()\n"
        "number = 3\n"
    )
    metric = get_metric(f"{file}:worst")
    meter = metric.start()
    meter.update(np.array([1.0, 2.0]), np.array([1.0, 2.5]))
    meter.update(np.array([1.0]), np.array([3.0]))
    assert meter.compute() == -2.0
    found: Metric = get_metric(f"{file}:Negative")
    assert (found.unit, found.evaluate([], [])) == ("m", -1.0)
    with pytest.raises(DataError, match="expected a Metric"):
        get_metric(f"{file}:number")
    with pytest.raises(ConfigError, match="has no 'absent'"):
        get_metric(f"{file}:absent")


def test_refusals() -> None:
    with pytest.raises(DataError, match="did you mean 'top1'"):
        get_metric("topp1")
    with pytest.raises(DataError, match="without samples"):
        get_metric("top1").start().compute()
    with pytest.raises(DataError, match="two or more classes"):
        get_metric("top1").evaluate(np.ones((4, 1)), LABELS)
    with pytest.raises(DataError, match="differ in shape"):
        get_metric("psnr").evaluate(np.ones((2, 3)), np.ones((2, 4)))


def test_without_labels_the_originals_classes_are_the_label(rng: np.random.Generator) -> None:
    """Square pictures with as many classes as rows: only the axis tells."""
    mine, original = rng.normal(size=(2, 6, 4, 4, 4)).astype(np.float32)
    for axis in (1, 3):
        labels = original.argmax(axis)
        right = 100 * float((mine.argmax(axis) == labels).mean())
        assert get_metric("agreement", axis).evaluate(mine, original) == pytest.approx(right)
        assert get_metric("miou", axis).evaluate(original, original) == 100.0
    wanted = get_metric("miou").evaluate(mine, original.argmax(1))
    assert get_metric("miou", 1).evaluate(mine, original) == pytest.approx(wanted)
    assert get_metric("top1").evaluate(SCORES, SCORES[::-1]) == get_metric("agreement").evaluate(
        SCORES, SCORES[::-1]
    )


def test_which_metrics_have_a_best() -> None:
    assert not getattr(get_metric("psnr"), "bounded", True)
    assert getattr(get_metric("miou"), "bounded", True)
    assert [ranks_classes(name) for name in ("miou", "top5", "psnr", "fidelity", "m:top1")] == [
        True,
        True,
        False,
        False,
        False,
    ]
