"""Photographs without labels for two networks with dense outputs: `prepare_dense.py SHARED_DATA OUT`.

Reads SHARED_DATA/datasets/imagenet_samples_224 (photographs of 224 x 224) and writes

    OUT/segmentation/{train,val,test}.npz, data.yaml        x uint8 [n, 257, 257, 3], RGB
    OUT/super_resolution/{train,val,test}.npz, data.yaml    x uint8 [n, 1, 224, 224], luminance of YCbCr

There are no labels: the original network's outputs are the target. Of every five photographs three are for training,
one for validation and one for the test, so that no photograph is in two splits. Each gives itself and random squares
of at least half its side, all resized to the network's size.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SEED = 0
LEAST_SIDE = 0.5  # of the photograph, of a random square
VIEWS = {"train": 4, "val": 2, "test": 2}  # samples a photograph
SEGMENTATION = """\
# Photographs for DeepLabV3, x / 127.5 - 1 as it was trained. No labels: the original's class maps are the target.
train: train.npz
val: val.npz
test: test.npz
layout: nhwc
scale: 1/127.5
mean: 1
augment: [flip]
task: distillation
metric: miou
"""
SUPER_RESOLUTION = """\
# Luminance of photographs, 0 to 1. No labels: the original's enlarged pictures are the target.
train: train.npz
val: val.npz
test: test.npz
layout: nchw
scale: 1/255
augment: [flip]
task: distillation
metric: psnr
"""


def split_of(index: int) -> str:
    """The split of photograph number `index`, in order of the names."""
    return {3: "val", 4: "test"}.get(index % 5, "train")


def views(photograph: Image.Image, count: int, side: int, rng: np.random.Generator) -> list[Image.Image]:
    """The photograph itself and `count - 1` random squares of it, side x side pixels each."""
    width, height = photograph.size
    boxes = [(0, 0, width, height)]
    for share in rng.uniform(LEAST_SIDE, 1.0, count - 1):
        size = round(share * min(width, height))
        left, top = rng.integers(0, width - size + 1), rng.integers(0, height - size + 1)
        boxes.append((int(left), int(top), int(left) + size, int(top) + size))
    return [photograph.resize((side, side), Image.Resampling.BICUBIC, box=box) for box in boxes]


def pixels(picture: Image.Image, luminance: bool) -> NDArray[np.uint8]:
    """uint8 [1, side, side], the luminance, or [side, side, 3], RGB."""
    if luminance:
        return np.asarray(picture.convert("YCbCr"))[None, :, :, 0]
    return np.asarray(picture)


def prepare(source: Path, out: Path, *, side: int, luminance: bool, config: str) -> None:
    """Writes the four files of one network; each appears only when it is whole."""
    files = sorted((source / "datasets" / "imagenet_samples_224").glob("*.jpg"))
    if len(files) < 5:
        raise SystemExit(
            f"{source}/datasets/imagenet_samples_224: {len(files)} photographs (*.jpg), expected 5 or more; "
            "give the folder that holds datasets/imagenet_samples_224"
        )
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(SEED)
    found: dict[str, list[NDArray[np.uint8]]] = {name: [] for name in VIEWS}
    for index, file in enumerate(files):
        name = split_of(index)
        with Image.open(file) as opened:
            made = views(opened.convert("RGB"), VIEWS[name], side, rng)
        found[name] += [pixels(picture, luminance) for picture in made]
    for name, samples in found.items():
        part = out / f"{name}.part.npz"
        np.savez(part, x=np.stack(samples))
        part.replace(out / f"{name}.npz")
        print(f"{out / name}.npz: {len(samples)} samples {samples[0].shape}")
    part = out / "data.yaml.part"
    part.write_text(config, encoding="utf-8")
    part.replace(out / "data.yaml")
    print(out / "data.yaml")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path, metavar="SHARED_DATA")
    parser.add_argument("out", type=Path, metavar="OUT")
    given = parser.parse_args(arguments)
    prepare(given.source, given.out / "segmentation", side=257, luminance=False, config=SEGMENTATION)
    prepare(given.source, given.out / "super_resolution", side=224, luminance=True, config=SUPER_RESOLUTION)
    return 0


if __name__ == "__main__":
    sys.exit(main())
