"""Numpy batches: what augmentation does to each image, checked one image at a time by slicing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from onnxnas import data
from onnxnas.data.batches import crop_flip
from onnxnas.types import TensorInfo


def one_by_one(image: np.ndarray, down: int, right: int, flip: bool, pad: int, fill: object) -> np.ndarray:
    """The plain definition for an image [c, h, w]."""
    c, h, w = image.shape
    canvas = np.full((c, h + 2 * pad, w + 2 * pad), np.reshape(fill, (-1, 1, 1)), image.dtype)
    canvas[:, pad:-pad, pad:-pad] = image
    cut = canvas[:, down : down + h, right : right + w]
    return cut[:, :, ::-1] if flip else cut


def test_crop_flip_is_the_plain_definition(rng: np.random.Generator) -> None:
    x = rng.normal(size=(50, 2, 5, 9)).astype(np.float32)
    down, right = rng.integers(0, 7, (2, 50))
    flip = rng.random(50) < 0.5
    expected = np.stack([one_by_one(x[i], down[i], right[i], flip[i], 3, -1) for i in range(50)])
    assert np.array_equal(crop_flip(x, down, right, flip, 3, -1), expected)


@pytest.fixture
def dataset(tmp_path: Path) -> data.DataSet:
    x = np.random.default_rng(0).integers(1, 256, (100, 16, 16, 3), np.uint8)
    np.savez(tmp_path / "d.npz", x=x, y=np.arange(100) % 5)
    text = (
        "train: d.npz\nval: d.npz\nlayout: nhwc\nscale: 1/255\nmean: [0.5, 0.4, 0.3]\nstd: [0.2, 0.3, 0.4]\n"
    )
    (tmp_path / "d.yaml").write_text(text + "augment: [crop, flip]\n")
    return data.load(
        tmp_path / "d.yaml", [TensorInfo("x", np.dtype(np.float32), (1, 3, 16, 16), ("n", 3, 16, 16))]
    )


def test_every_sample_once_in_order_without_rng(dataset: data.DataSet) -> None:
    parts = list(data.batches(dataset.train, dataset, 32))
    assert [len(x["x"]) for x, _ in parts] == [32, 32, 32, 4]
    assert np.concatenate([y for _, y in parts if y is not None]).tolist() == [i % 5 for i in range(100)]
    assert len(list(data.batches(dataset.train, dataset, 32, drop_last=True))) == 3
    assert [len(x["x"]) for x, _ in data.batches(dataset.train, dataset, 32, limit=40)] == [32, 8]


def test_shuffled_by_the_generator(dataset: data.DataSet) -> None:
    def order(seed: int) -> list[bytes]:
        made = data.batches(dataset.train, dataset, 32, rng=np.random.default_rng(seed))
        return [image.tobytes() for x, _ in made for image in x["x"]]

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert sorted(order(1)) == sorted(order(2))


def test_augmented_batches_are_crops_of_the_normalised_images(dataset: data.DataSet) -> None:
    """Each augmented image is found, by exhaustive search, as a crop of its own image; shifts are uniform."""
    single = replace(dataset, train=dataset.train.take(np.zeros(400, np.int64)))
    plain = next(data.batches(single.train, single, 1))[0]["x"][0]
    black = dataset.normalise.affine()[1]
    candidates = {
        one_by_one(plain, d, r, f, 2, black).tobytes(): (d, r, f)
        for d in range(5)
        for r in range(5)
        for f in (False, True)
    }
    assert len(candidates) == 50
    made = data.batches(single.train, single, 64, rng=np.random.default_rng(0), augment=True)
    seen = [candidates[image.tobytes()] for x, _ in made for image in x["x"]]
    for axis in (0, 1):
        counts = np.bincount([s[axis] for s in seen], minlength=5)
        assert ((counts - 80) ** 2 / 80).sum() < 18.5  # chi-square, 4 degrees of freedom, p = 0.001
    assert abs(np.mean([s[2] for s in seen]) - 0.5) < 0.09


def test_augmenting_without_a_generator_is_an_error(dataset: data.DataSet) -> None:
    with pytest.raises(ValueError, match="rng"):
        next(data.batches(dataset.train, dataset, 8, augment=True))
    with pytest.raises(ValueError, match="batch_size"):
        next(data.batches(dataset.train, dataset, 0))
