"""Torch batches: against the numpy ones and the plain definition; resuming inside an epoch."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from onnxnas import data
from onnxnas.data.torch_batches import TorchBatches, crop_flip, patched
from onnxnas.types import TensorInfo

IMAGE = [TensorInfo("x", np.dtype(np.float32), (1, 3, 16, 16), ("n", 3, 16, 16))]


def make(folder: Path, layout: str = "nhwc", augment: str = "[crop, flip]", n: int = 100) -> data.DataSet:
    shape = (n, 16, 16, 3) if layout == "nhwc" else (n, 3, 16, 16)
    x = np.random.default_rng(0).integers(1, 256, shape, np.uint8)
    np.savez(folder / "d.npz", x=x, y=np.arange(n) % 5)
    text = f"train: d.npz\nval: d.npz\nlayout: {layout}\nscale: 1/255\nmean: [0.5, 0.4, 0.3]\nstd: [0.2, 0.3, 0.4]\n"
    (folder / "d.yaml").write_text(text + f"augment: {augment}\n")
    return data.load(folder / "d.yaml", IMAGE)


def test_crop_flip_is_the_plain_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((40, 6, 9, 3), generator=generator)
    down, right = torch.randint(0, 5, (2, 40), generator=generator)
    flip = torch.rand(40, generator=generator) < 0.5
    got = crop_flip(x, down, right, flip, 2, -1.0).numpy()
    for i in range(40):
        canvas = np.full((10, 13, 3), -1, np.float32)
        canvas[2:-2, 2:-2] = x[i].numpy()
        cut = canvas[down[i] : down[i] + 6, right[i] : right[i] + 9]
        assert np.array_equal(got[i], cut[:, ::-1] if flip[i] else cut)


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@pytest.mark.parametrize("channels_last", [True, False])
def test_plain_batches_equal_numpy(tmp_path: Path, layout: str, channels_last: bool) -> None:
    dataset = make(tmp_path, layout)
    store = TorchBatches(dataset.train, dataset, channels_last=channels_last)
    made = list(store.epoch(32, shuffle=False, augment=False, drop_last=False))
    expected = list(data.batches(dataset.train, dataset, 32))
    assert len(made) == len(expected) == store.count(32, drop_last=False) == 4
    for (x, y), (other, labels) in zip(made, expected, strict=True):
        memory = torch.channels_last if channels_last else torch.contiguous_format
        assert x["x"].is_contiguous(memory_format=memory)
        np.testing.assert_allclose(x["x"].numpy(), other["x"], atol=2e-6)
        assert y is not None
        assert y.dtype == torch.int64
        assert np.array_equal(y.numpy(), labels)


def test_augmented_images_are_crops_padded_with_normalised_black(tmp_path: Path) -> None:
    dataset = make(tmp_path)
    store = TorchBatches(dataset.train, dataset)
    plain = next(store.epoch(100, shuffle=False, augment=False))[0]["x"].numpy()
    seen = []
    for epoch in range(4):
        images = next(store.epoch(100, seed=3, epoch=epoch, shuffle=False))[0]["x"].numpy()
        canvas = np.empty((100, 3, 20, 20), np.float32)
        canvas[:] = dataset.normalise.affine()[1][:, None, None]
        canvas[:, :, 2:-2, 2:-2] = plain
        options = {
            (d, r, f): canvas[:, :, d : d + 16, r : r + 16][..., :: -1 if f else 1]
            for d in range(5)
            for r in range(5)
            for f in (0, 1)
        }
        same = {key: (images == cut).all((1, 2, 3)) for key, cut in options.items()}
        found = [[key for key, hits in same.items() if hits[i]] for i in range(100)]
        assert all(len(keys) == 1 for keys in found)
        seen += [keys[0] for keys in found]
    for axis in (0, 1):
        counts = np.bincount([s[axis] for s in seen], minlength=5)
        assert ((counts - 80) ** 2 / 80).sum() < 18.5  # chi-square, 4 degrees of freedom, p = 0.001
    assert abs(np.mean([s[2] for s in seen]) - 0.5) < 0.09


def test_an_epoch_is_seeded_and_can_start_anywhere(tmp_path: Path) -> None:
    dataset = make(tmp_path)
    store = TorchBatches(dataset.train, dataset)
    whole = [x["x"] for x, _ in store.epoch(16, seed=5, epoch=2)]
    assert len(whole) == 6
    late = [x["x"] for x, _ in TorchBatches(dataset.train, dataset).epoch(16, seed=5, epoch=2, start=4)]
    assert len(late) == 2
    assert all(torch.equal(a, b) for a, b in zip(whole[4:], late, strict=True))
    assert not torch.equal(whole[0], next(store.epoch(16, seed=5, epoch=3))[0]["x"])
    assert not torch.equal(whole[0], next(store.epoch(16, seed=6, epoch=2))[0]["x"])


def test_an_epoch_has_every_sample_once(tmp_path: Path) -> None:
    dataset = make(tmp_path, augment="[]")
    store = TorchBatches(dataset.train, dataset)
    images = [i.tobytes() for x, _ in store.epoch(32, seed=1, drop_last=False) for i in x["x"].numpy()]
    plain = [i.tobytes() for x, _ in store.epoch(32, shuffle=False, drop_last=False) for i in x["x"].numpy()]
    assert sorted(images) == sorted(plain)
    assert images != plain
    assert len([1 for _ in store.epoch(10, limit=35)]) == store.count(10, limit=35) == 3


@pytest.mark.parametrize("mixed", [0.0, 0.5])
def test_mirrored_epochs_come_in_pairs(tmp_path: Path, mixed: float) -> None:
    """The second has the first's pictures the other way round, crops and patches too; the third is another."""
    dataset = make(tmp_path, n=320)
    store = TorchBatches(dataset.train, dataset)
    found = [list(store.epoch(16, seed=4, epoch=epoch, mixed=mixed, mirrored=True)) for epoch in (2, 3, 4)]
    for (x, y), (other, labels) in zip(found[0], found[1], strict=True):
        assert torch.equal(x["x"], other["x"].flip(3))
        assert (y is None and labels is None) or torch.equal(y, labels)  # type: ignore[arg-type]
    assert not torch.equal(found[1][0][0]["x"], found[2][0][0]["x"])
    assert any(y is None for _, y in found[0]) == (mixed > 0)
    parts = [list(store.epoch(16, seed=4, epoch=3, mixed=mixed, mirrored=True, part=(2, k))) for k in (0, 1)]
    for (whole, _), (one, _), (two, _) in zip(found[1], *parts, strict=True):
        assert torch.equal(whole["x"], torch.cat([one["x"], two["x"]]))


def test_flip_alone_does_not_move(tmp_path: Path) -> None:
    dataset = make(tmp_path, augment="[flip]")
    store = TorchBatches(dataset.train, dataset)
    plain = next(store.epoch(100, shuffle=False, augment=False))[0]["x"]
    made = next(store.epoch(100, shuffle=False))[0]["x"]
    mirrored = (made == plain.flip(3)).all(-1).all(-1).all(-1)
    assert 25 < int(mirrored.sum()) < 75
    assert torch.equal(made[~mirrored], plain[~mirrored])


def test_targets_move_with_their_images(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(1, 200, (40, 1, 16, 16), np.uint8)
    np.savez(tmp_path / "d.npz", x=x, y=x[:, 0])
    (tmp_path / "d.yaml").write_text("train: d.npz\nscale: 1\nmean: -1\naugment: [crop, flip]\n")
    one = [TensorInfo("x", np.dtype(np.float32), (1, 1, 16, 16), None)]
    dataset = data.load(tmp_path / "d.yaml", one, outputs=[TensorInfo("o", None, (1, 200, 16, 16))])
    made = [next(TorchBatches(dataset.train, dataset).epoch(30))]
    images, labels = next(
        data.batches(dataset.train, dataset, 30, rng=np.random.default_rng(0), augment=True)
    )
    made.append(({"x": torch.from_numpy(images["x"])}, torch.from_numpy(np.asarray(labels, np.int64))))
    for batch, y in made:
        assert y is not None
        pixels = batch["x"][:, 0]  # stored value + 1; 1 where padded with black
        assert torch.equal(torch.where(pixels == 1, 255, pixels - 1).long(), y)
        assert (pixels == 1).any()


def test_other_inputs_pass_through(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", ids=np.arange(80).reshape(20, 4), w=np.ones((20, 2), np.float16))
    inputs = [TensorInfo("ids", np.dtype(np.int32), (1, 4)), TensorInfo("w", np.dtype(np.float32), (1, 2))]
    dataset = data.load(tmp_path / "d.npz", inputs)
    x, y = next(TorchBatches(dataset.train, dataset).epoch(5, shuffle=False))
    assert y is None
    assert (x["ids"].dtype, x["w"].dtype) == (torch.int32, torch.float32)
    assert np.array_equal(x["ids"].numpy(), dataset.train.x["ids"][:5])


def test_fast_enough(tmp_path: Path) -> None:
    """20,000 images of 32 x 32 a second on one core; the best of several epochs, machines being shared."""
    x = np.random.default_rng(0).integers(0, 256, (2048, 32, 32, 3), np.uint8)
    np.savez(tmp_path / "d.npz", x=x)
    (tmp_path / "d.yaml").write_text(
        "train: d.npz\nval: d.npz\nlayout: nhwc\nstd: 0.5\naugment: [crop, flip]\n"
    )
    dataset = data.load(tmp_path / "d.yaml", [TensorInfo("x", np.dtype(np.float32), (1, 3, 32, 32))])
    store = TorchBatches(dataset.train, dataset, channels_last=True)
    best = np.inf
    for epoch in range(6):
        start = time.perf_counter()
        count = sum(len(batch["x"]) for batch, _ in store.epoch(128, epoch=epoch))
        best = min(best, (time.perf_counter() - start) / count)
    assert 1 / best > 20_000


def test_patches_are_the_plain_definition() -> None:
    """A box of the image's proportions around the centre, cut off at the edges; the rest stays."""
    generator = torch.Generator().manual_seed(0)
    mine, others = torch.randn((2, 50, 8, 12, 3), generator=generator)
    area, down, right = torch.rand((3, 50), generator=generator)
    got = patched(mine, others, area, down, right).numpy()
    shares = []
    for i in range(50):
        high, wide = 8 * float(area[i]) ** 0.5, 12 * float(area[i]) ** 0.5
        expected = mine[i].numpy().copy()
        inside = 0
        for row in range(8):
            for column in range(12):
                far = (
                    abs(row + 0.5 - 8 * float(down[i])) / high,
                    abs(column + 0.5 - 12 * float(right[i])) / wide,
                )
                if max(far) < 0.5:
                    expected[row, column] = others[i, row, column]
                    inside += 1
        assert np.array_equal(got[i], expected)
        shares.append(inside / 96)
    assert min(shares) < 0.02
    assert max(shares) > 0.6


def test_a_share_of_the_batches_is_mixed(tmp_path: Path) -> None:
    """Each pixel is the picture's own or that of the one before it in the batch; the other batches are as ever."""
    dataset = make(tmp_path, n=1600)
    store = TorchBatches(dataset.train, dataset)
    plain = list(store.epoch(16, seed=3))
    made = list(store.epoch(16, seed=3, mixed=0.5))
    mixed = 0
    for (x, y), (was, labels) in zip(made, plain, strict=True):
        assert labels is not None
        if y is not None:
            assert torch.equal(x["x"], was["x"])
            assert torch.equal(y, labels)
            continue
        mixed += 1
        own, other = was["x"], was["x"].roll(1, 0)
        assert bool(((x["x"] == own) | (x["x"] == other)).all())
        assert 0 < float((x["x"] != own).float().mean()) < 1
    assert 35 <= mixed <= 65
    assert all(y is None for _, y in store.epoch(16, seed=3, mixed=1.0))
    again = [x["x"] for x, _ in store.epoch(16, seed=3, mixed=0.5, start=40)]
    assert all(torch.equal(one, x["x"]) for one, (x, _) in zip(again, made[40:], strict=True))
