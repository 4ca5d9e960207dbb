"""CIFAR-10 as this project reads it, from lossless image sheets: `prepare_cifar10.py SHARED_DATA OUT [--no-labels]`.

Reads SHARED_DATA/datasets/cifar10 (sheets of 32 x 32 images, 100 to a row, and labels.npz) and writes
OUT/train.npz, OUT/test.npz (x uint8 [n, 32, 32, 3], y int64 [n]) and OUT/cifar10.yaml. There is no
validation file: the tool takes it from the training images. The test images are the development ones.
With --no-labels there is no y, and the original's outputs are the target.

Data: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE, COLUMNS = 32, 100
CONFIG = """\
# CIFAR-10, normalised as the published CIFAR ResNets were trained.
train: train.npz
test: test.npz
layout: nhwc
scale: 1/255
mean: [0.485, 0.456, 0.406]
std: [0.229, 0.224, 0.225]
augment: [crop, flip]
task: classification
metric: top1
"""


def read_sheet(path: Path, count: int) -> NDArray[np.uint8]:
    """The first `count` images of a sheet: uint8 [count, 32, 32, 3]."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    grid = pixels.reshape(-1, SIDE, COLUMNS, SIDE, 3).swapaxes(1, 2).reshape(-1, SIDE, SIDE, 3)
    if len(grid) < count:
        raise SystemExit(f"{path}: {len(grid)} images, expected {count}")
    return grid[:count]


def read_sheets(folder: Path, pattern: str, count: int) -> NDArray[np.uint8]:
    """The images of the sheets that match, in order of their names; all but the last sheet are full."""
    sheets = sorted(folder.glob(pattern))
    if not sheets:
        raise SystemExit(f"{folder}: no {pattern}")
    images: list[NDArray[np.uint8]] = []
    left = count
    for number, sheet in enumerate(sheets):
        take = left if number == len(sheets) - 1 else min(left, 10_000)
        images.append(read_sheet(sheet, take))
        left -= take
    return np.concatenate(images)


def prepare(source: Path, out: Path, *, labelled: bool = True) -> None:
    """Writes the three files; each appears only when it is whole."""
    folder = source / "datasets" / "cifar10"
    if not (folder / "labels.npz").is_file():
        raise SystemExit(f"{folder}/labels.npz: no such file; give the folder that holds datasets/cifar10")
    out.mkdir(parents=True, exist_ok=True)
    with np.load(folder / "labels.npz", allow_pickle=False) as labels:
        parts = {"train": ("train_*.webp", labels["train"]), "test": ("test_dev.webp", labels["test_dev"])}
    for name, (pattern, y) in parts.items():
        x = read_sheets(folder, pattern, len(y))
        part = out / f"{name}.part.npz"
        np.savez(part, x=x, **({"y": y.astype(np.int64)} if labelled else {}))
        part.replace(out / f"{name}.npz")
        print(f"{out / name}.npz: {len(y):,} images, {np.bincount(y).tolist()} a class")
    part = out / "cifar10.yaml.part"
    part.write_text(CONFIG if labelled else CONFIG.partition("task:")[0], encoding="utf-8")
    part.replace(out / "cifar10.yaml")
    print(out / "cifar10.yaml")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path, metavar="SHARED_DATA")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--no-labels", action="store_true", help="the original's outputs are the target")
    given = parser.parse_args(arguments)
    prepare(given.source, given.out, labelled=not given.no_labels)
    return 0


if __name__ == "__main__":
    sys.exit(main())
