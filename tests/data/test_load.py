"""Loading: what is accepted and what it becomes; what is refused, with the message that says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onnxnas import data
from onnxnas.errors import DataError
from onnxnas.types import TensorInfo

CLASSES = 10


def info(name: str = "x", shape: tuple[int, ...] = (1, 3, 8, 8), dtype: str = "float32") -> TensorInfo:
    return TensorInfo(name, np.dtype(dtype), shape, ("batch", *shape[1:]))


INPUT = [info()]
OUTPUT = [info("out", (1, CLASSES))]


def samples(n: int = 40, shape: tuple[int, ...] = (3, 8, 8), seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"x": rng.normal(size=(n, *shape)).astype(np.float32), "y": np.arange(n) % CLASSES}


def save(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def refused(spec: Path | str, *words: str, inputs: list[TensorInfo] = INPUT, outputs: Any = OUTPUT) -> None:
    with pytest.raises(DataError) as caught:
        data.load(spec, inputs, outputs=outputs, seed=0)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


# accepted


def test_npz_with_labels(tmp_path: Path) -> None:
    given = samples(200)
    found = data.load(save(tmp_path / "d.npz", **given), INPUT, outputs=OUTPUT, seed=3)
    assert (found.task, found.metric, found.loss) == ("classification", "top1", "cross_entropy")
    assert found.test is None
    assert found.train.n + found.val.n == 200
    assert any("no val given" in note and "stratified" in note for note in found.notes)
    rebuilt = np.concatenate([found.train.x["x"], found.val.x["x"]])
    assert sorted(map(bytes, rebuilt)) == sorted(map(bytes, given["x"]))
    assert found.train.y is not None
    pairs = {x.tobytes(): y for x, y in zip(given["x"], given["y"], strict=True)}
    assert all(pairs[x.tobytes()] == y for x, y in zip(found.train.x["x"], found.train.y, strict=True))


def test_several_inputs_by_name(tmp_path: Path) -> None:
    inputs = [info("ids", (1, 5), "int64"), info("mask", (1, 5), "float32")]
    path = save(tmp_path / "d.npz", ids=np.ones((20, 5), np.int32), mask=np.ones((20, 5), np.float64))
    found = data.load(path, inputs)
    assert found.task == "distillation"
    x, y = next(data.batches(found.val, found, 2))
    assert y is None
    assert (x["ids"].dtype, x["mask"].dtype) == (np.int64, np.float32)


def test_no_labels_is_distillation(tmp_path: Path) -> None:
    found = data.load(save(tmp_path / "d.npz", x=samples()["x"]), INPUT, outputs=OUTPUT)
    assert (found.task, found.metric, found.loss) == ("distillation", "fidelity", "distillation")
    assert found.train.y is None
    assert any("original model" in note for note in found.notes)


def test_float_targets_shaped_as_the_output_are_regression(tmp_path: Path) -> None:
    y = np.random.default_rng(0).normal(size=(40, 3))
    path = save(tmp_path / "d.npz", x=samples()["x"], y=y)
    found = data.load(path, INPUT, outputs=[info("out", (1, 3))])
    assert (found.task, found.metric, found.loss) == ("regression", "r2", "mse")


def test_label_per_pixel_is_segmentation_and_255_is_nothing(tmp_path: Path) -> None:
    y = np.full((40, 8, 8), 255, np.uint8)
    y[:, 0] = 4
    path = save(tmp_path / "d.npz", x=samples()["x"], y=y)
    found = data.load(path, INPUT, outputs=[info("out", (1, 5, 8, 8))])
    assert (found.task, found.metric) == ("segmentation", "miou")
    refused(path, "y[0][0][0] is 4", "0 .. 3", outputs=[info("out", (1, 4, 8, 8))])


def test_outputs_whose_size_follows_the_input(tmp_path: Path) -> None:
    def free(*declared: int | str) -> list[TensorInfo]:
        return [TensorInfo("o", np.dtype(np.float32), (1, 3, 224, 224), ("n", *declared))]

    x = samples()["x"]
    path = save(tmp_path / "r.npz", x=x, y=np.zeros((40, 3, 16, 16)))
    assert data.load(path, INPUT, outputs=free(3, "h", "w")).task == "regression"
    refused(path, "integers", outputs=free(4, "h", "w"))
    path = save(tmp_path / "s.npz", x=x, y=np.full((40, 8, 8), 6))
    assert data.load(path, INPUT, outputs=free(7, "h", "w")).task == "segmentation"
    assert data.load(path, INPUT, outputs=free("h", "w", 7)).task == "segmentation"
    refused(path, "y[0][0][0] is 6", "6 classes", outputs=free(6, "h", "w"))
    refused(path, "y[0][0][0] is 6", "6 classes", outputs=free("h", "w", 6))


def test_yaml(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for name in ("train", "test"):
        x = rng.integers(0, 256, (60, 8, 8, 3), np.uint8)
        save(tmp_path / f"{name}.npz", x=x, y=np.arange(60) % CLASSES)
    text = (
        "train: train.npz\ntest: test.npz\nlayout: nhwc\nscale: 1 / 255.0\nmean: [0.5, 0.4, 0.3]\nstd: 0.25\n"
    )
    (tmp_path / "d.yaml").write_text(text + "augment: [crop, flip]\ntask: classification\nmetric: top5\n")
    found = data.load(tmp_path / "d.yaml", INPUT, outputs=OUTPUT)
    assert found.test is not None
    assert (found.test.n, found.metric, found.augment) == (60, "top5", ("crop", "flip"))
    assert found.train.x["x"].dtype == np.uint8
    x, _ = next(data.batches(found.test, found, 7))
    raw = found.test.x["x"][:7].astype(np.float64)
    expected = np.stack([(raw[..., c] / 255 - m) / 0.25 for c, m in enumerate((0.5, 0.4, 0.3))], 1)
    np.testing.assert_allclose(x["x"], expected, atol=1e-5)


def test_layout_is_taken_from_the_shape_and_said(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)
    found = data.load(save(tmp_path / "d.npz", x=x), INPUT)
    assert (found.normalise.layout, found.normalise.model_layout) == ("nhwc", "nchw")
    assert any("taken as nhwc" in note for note in found.notes)
    assert any("divided by 255" in note for note in found.notes)


def test_a_model_in_nhwc_gets_nhwc(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (40, 3, 8, 8), np.uint8)
    (tmp_path / "d.yaml").write_text("train: d.npz\nlayout: nchw\nscale: 1\n")
    save(tmp_path / "d.npz", x=x)
    found = data.load(tmp_path / "d.yaml", [info(shape=(1, 8, 8, 3))])
    batch, _ = next(data.batches(found.train, found, 4))
    assert np.array_equal(batch["x"], found.train.x["x"][:4].transpose(0, 2, 3, 1).astype(np.float32))


def write_images(folder: Path, per_class: int = 12, size: tuple[int, int] = (8, 8)) -> None:
    for number, name in enumerate(("cat", "ant", "bee")):
        (folder / name).mkdir(parents=True)
        for i in range(per_class):
            Image.new("RGB", size, (number * 100, i, 7)).save(folder / name / f"{i:02}.png")


def test_folder_of_images(tmp_path: Path) -> None:
    write_images(tmp_path / "d")
    found = data.load(tmp_path / "d", INPUT, outputs=OUTPUT)
    assert found.classes == ("ant", "bee", "cat")
    assert found.train.y is not None
    red = {0: 100, 1: 200, 2: 0}  # of ant, bee, cat
    assert all(
        (image[..., 0] == red[int(y)]).all()
        for image, y in zip(found.train.x["x"], found.train.y, strict=True)
    )


def test_folder_with_splits_numbers_classes_as_train_does(tmp_path: Path) -> None:
    write_images(tmp_path / "d" / "train")
    write_images(tmp_path / "d" / "test", 2, (32, 16))  # another size: scaled and cut
    for file in (tmp_path / "d" / "test" / "ant").iterdir():
        file.unlink()
    (tmp_path / "d" / "test" / "ant").rmdir()
    found = data.load(tmp_path / "d", INPUT, outputs=OUTPUT)
    assert found.test is not None
    assert found.test.y is not None
    assert found.test.y.tolist() == [1, 1, 2, 2]
    assert found.test.x["x"].shape == (4, 8, 8, 3)
    (tmp_path / "d" / "test" / "dog").mkdir()
    refused(tmp_path / "d", "'dog'", "training classes")


FUNCTIONS = """
import torch
from torch.utils.data import Dataset, TensorDataset

class Bad(Dataset):
    def __len__(self):
        return 20
    def __getitem__(self, i):
        return torch.zeros(3, 8, 9 if i == 13 else 8), i % 2

def pair():
    x = torch.arange(40 * 192, dtype=torch.float32).reshape(40, 3, 8, 8)
    return TensorDataset(x[:30], torch.arange(30) % 10), TensorDataset(x[30:], torch.arange(10) % 10)

def bad():
    return Bad()

def broken():
    raise RuntimeError("no disk")
"""


def test_function(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FUNCTIONS)
    found = data.load(f"{tmp_path}/mine.py:pair", INPUT, outputs=OUTPUT)
    assert (found.train.n, found.val.n) == (30, 10)
    assert found.val.y is not None
    assert found.val.y.tolist() == list(range(10))
    assert found.val.x["x"][0, 0, 0, 0] == 30 * 192
    refused(f"{tmp_path}/mine.py:bad", "sample 13", "(3, 8, 9)")
    refused(f"{tmp_path}/mine.py:broken", "RuntimeError", "no disk")
    refused(f"{tmp_path}/mine.py:absent", "'absent'")
    refused(f"{tmp_path}/other.py:pair", "no such file")


def test_digest_follows_content_and_settings(tmp_path: Path) -> None:
    given = samples(80)
    first = data.load(save(tmp_path / "a.npz", **given), INPUT, seed=1)
    assert data.load(save(tmp_path / "b.npz", **given), INPUT, seed=1).digest == first.digest
    assert data.load(tmp_path / "a.npz", INPUT, seed=2).digest != first.digest
    (tmp_path / "a.yaml").write_text("train: a.npz\nmean: 0.1\n")
    assert data.load(tmp_path / "a.yaml", INPUT, seed=1).digest != first.digest
    given["x"][5, 0, 0, 0] += 1
    assert data.load(save(tmp_path / "c.npz", **given), INPUT, seed=1).digest != first.digest


def test_samples_of_test_that_are_in_train_are_counted(tmp_path: Path) -> None:
    given = samples(40)
    save(tmp_path / "a.npz", **given)
    other = samples(20, seed=5)
    other["x"][:3] = given["x"][10:13]
    save(tmp_path / "b.npz", **other)
    (tmp_path / "d.yaml").write_text("train: a.npz\nval: b.npz\n")
    found = data.load(tmp_path / "d.yaml", INPUT, outputs=OUTPUT)
    assert "3 of 20 val samples are also in train" in found.notes


# refused


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "inf"), (-np.inf, "-inf")])
def test_not_finite(tmp_path: Path, value: float, word: str) -> None:
    given = samples()
    given["x"][17, 1, 2, 3] = value
    given["x"][30] = value
    refused(save(tmp_path / "d.npz", **given), "x[17]", word, "(1, 2, 3)")


def test_too_large_for_the_model(tmp_path: Path) -> None:
    x = samples()["x"].astype(np.float64)
    x[9, 0, 0, 0] = 1e300
    refused(save(tmp_path / "d.npz", x=x), "x[9]", "1e+300")
    ids = np.ones((20, 5), np.int64)
    ids[11, 4] = 2**40
    refused(save(tmp_path / "i.npz", x=ids), "x[11]", "int32", inputs=[info(shape=(1, 5), dtype="int32")])


@pytest.mark.parametrize("shape", [(3, 8, 9), (1, 8, 8), (8, 8), (3, 8, 8, 1), (192,)])
def test_wrong_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    refused(save(tmp_path / "d.npz", **samples(shape=shape)), "wrong shape", "expected [n, 3, 8, 8]")


def test_layout_that_contradicts_the_shape(tmp_path: Path) -> None:
    save(tmp_path / "a.npz", **samples())
    (tmp_path / "d.yaml").write_text("train: a.npz\nlayout: nhwc\n")
    refused(tmp_path / "d.yaml", "wrong shape stored as nhwc", "[n, 3, 8, 8]")


@pytest.mark.parametrize(
    ("dtype", "model"), [("complex64", "float32"), ("U3", "float32"), ("float32", "int64")]
)
def test_wrong_dtype(tmp_path: Path, dtype: str, model: str) -> None:
    x = np.ones((20, 3, 8, 8)).astype(dtype)
    refused(save(tmp_path / "d.npz", x=x), "wrong dtype", model, inputs=[info(dtype=model)])


def test_objects_are_not_unpickled(tmp_path: Path) -> None:
    refused(save(tmp_path / "d.npz", x=np.array([{}, {}], object)), "plain arrays")


@pytest.mark.parametrize(("at", "label", "says"), [(23, 10, "y[23] is 10"), (4, -1, "y[4] is -1")])
def test_label_out_of_range(tmp_path: Path, at: int, label: int, says: str) -> None:
    given = samples()
    given["y"][at] = label
    refused(save(tmp_path / "d.npz", **given), says, "0 .. 9", "10 classes")


def test_unsigned_label_out_of_range(tmp_path: Path) -> None:
    given = samples()
    y = given["y"].astype(np.uint64)
    y[6] = 2**63 + 5
    refused(save(tmp_path / "d.npz", x=given["x"], y=y), "y[6]")


def test_float_labels(tmp_path: Path) -> None:
    given = samples()
    path = save(tmp_path / "d.npz", x=given["x"], y=given["y"].astype(np.float32))
    refused(path, "float32", "integers")
    (tmp_path / "d.yaml").write_text("train: d.npz\ntask: classification\n")
    refused(tmp_path / "d.yaml", "float32", "integers")


def test_labels_that_the_output_has_no_scores_for(tmp_path: Path) -> None:
    path = save(tmp_path / "d.npz", x=samples()["x"], y=np.arange(40) % 2)
    refused(path, "no scores", outputs=[info("out", (1, 1))])
    refused(path, "no scores", outputs=[info("out", (1, 5, 7, 7))])


def test_one_hot_labels(tmp_path: Path) -> None:
    given = samples()
    refused(save(tmp_path / "d.npz", x=given["x"], y=np.eye(CLASSES, dtype=int)[given["y"]]), "argmax")


def test_empty_and_too_few(tmp_path: Path) -> None:
    refused(save(tmp_path / "d.npz", **samples(0)), "no samples")
    refused(save(tmp_path / "e.npz", **samples(5)), "5 samples", "at least 8")
    (tmp_path / "f").mkdir()
    refused(tmp_path / "f", "no sub-folders")
    (tmp_path / "f" / "cat").mkdir()
    refused(tmp_path / "f", "no images")


def test_one_class(tmp_path: Path) -> None:
    refused(save(tmp_path / "d.npz", x=samples()["x"], y=np.full(40, 3)), "one class", "3")


def test_lengths_differ(tmp_path: Path) -> None:
    given = samples()
    refused(save(tmp_path / "d.npz", x=given["x"], y=given["y"][:39]), "y has 39", "x has 40")


def test_array_names(tmp_path: Path) -> None:
    given = samples()
    refused(save(tmp_path / "a.npz", images=given["x"]), "'x'", "images")
    refused(save(tmp_path / "b.npz", **given, extra=given["y"]), "'extra'", "no model input")
    two = [info("left"), info("right")]
    refused(
        save(tmp_path / "c.npz", left=given["x"], rigth=given["x"]),
        "'right'",
        "did you mean 'rigth'",
        inputs=two,
    )


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    refused(tmp_path / "absent.npz", "no such file")
    refused(tmp_path / "absent.yaml", "no such file")
    whole = save(tmp_path / "d.npz", **samples()).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path / "cut.npz", "not a readable .npz")
    np.save(tmp_path / "single.npy", np.zeros(3))
    (tmp_path / "single.npy").rename(tmp_path / "single.npz")
    refused(tmp_path / "single.npz", "not a readable .npz")
    (tmp_path / "d.txt").write_text("x")
    refused(tmp_path / "d.txt", "expected an .npz file")
    write_images(tmp_path / "images", 3)
    (tmp_path / "images" / "bee" / "01.png").write_bytes(b"not an image")
    refused(tmp_path / "images", "01.png", "image 4", "cannot be read")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: d.npz\nlayuot: nchw\n", ("'layuot'", "did you mean 'layout'")),
        ("train: d.npz\nxyzzy: 1\n", ("'xyzzy'", "known keys")),
        ("val: d.npz\n", ("'train' is missing",)),
        ("- train\n", ("list",)),
        ("train: [\n", ("not YAML",)),
        ("train: d.npz\nstd: [0.1, 0, 0.1]\n", ("std", "positive")),
        ("train: d.npz\nmean: [.nan]\n", ("mean", "finite")),
        ("train: d.npz\nmean: [1, 2]\n", ("mean has 2 values", "3")),
        ("train: d.npz\nscale: fast\n", ("scale", "'fast' is not a number")),
        ("train: d.npz\naugment: [rotate]\n", ("augment",)),
        ("train: d.npz\nmetric: topp1\n", ("'topp1'", "did you mean 'top1'")),
        ("train: d.npz\nloss: crossentropy\n", ("'crossentropy'", "did you mean 'cross_entropy'")),
        ("train: x.npz\n", ("no such file",)),
        ("train: d.npz\nval: unlabelled.npz\n", ("unlabelled.npz", "no labels")),
        ("train: unlabelled.npz\ntask: classification\n", ("needs labels",)),
        ("train: flat.npz\naugment: flip\n", ("flat.npz",)),
    ],
)
def test_bad_yaml(tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    save(tmp_path / "d.npz", **samples())
    save(tmp_path / "unlabelled.npz", x=samples()["x"])
    save(tmp_path / "flat.npz", **samples(shape=(5,)))
    (tmp_path / "d.yaml").write_text(text)
    refused(tmp_path / "d.yaml", *words)


def test_augment_needs_images(tmp_path: Path) -> None:
    save(tmp_path / "d.npz", **samples(shape=(5,)))
    (tmp_path / "d.yaml").write_text("train: d.npz\naugment: flip\n")
    refused(tmp_path / "d.yaml", "augment", "image", inputs=[info(shape=(1, 5))])
