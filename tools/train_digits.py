"""Trains and exports the demo model: `train_digits.py [OUT]`, by default into models/.

Writes digits_train.npz, digits_val.npz, digits_test.npz (x uint8 [n, 1, 8, 8], values 0..16; y int64 [n]),
digits.yaml, digits_resnet.onnx and its card digits_resnet.md. Needs scikit-learn, for its bundled digits.
The network is larger than the task needs, so that there is something to find. About a minute on one core;
the same versions of torch and the same processor give the same file.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

SEED = 7
EPOCHS, BATCH, RATE = 40, 64, 2e-3
WIDTHS, BLOCKS = (24, 32, 48), 2
SHARES = (0.7, 0.1, 0.2)
CONFIG = """\
# Handwritten digits, 8 x 8, levels 0 (paper) to 16. No flip: mirrored digits are not digits.
train: digits_train.npz
val: digits_val.npz
test: digits_test.npz
layout: nchw
scale: 1/16
augment: [crop]
task: classification
metric: top1
"""


class Block(nn.Module):
    """conv-BN-ReLU-conv3x3-BN, plus the shortcut (a 1x1 convolution where the shape changes), ReLU."""

    def __init__(self, before: int, after: int, stride: int = 1, kernel: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or before != after:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class DigitsResNet(nn.Module):
    """Images [b, 1, 8, 8] to scores [b, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, WIDTHS[0], 5, 1, 2, bias=False)
        self.bn = nn.BatchNorm2d(WIDTHS[0])
        stages = []
        before = WIDTHS[0]
        for number, width in enumerate(WIDTHS):
            first = Block(before, width, stride=2 if number else 1, kernel=3 if number else 5)
            stages.append(nn.Sequential(first, *(Block(width, width) for _ in range(BLOCKS - 1))))
            before = width
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(before, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages(functional.relu(self.bn(self.stem(x))))
        scores: Tensor = self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))
        return scores


def network() -> DigitsResNet:
    """For `onnxnas export tools/train_digits.py:network --input x=1,1,8,8`."""
    return DigitsResNet()


def split_digits() -> dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """train, val, test: stratified and seeded."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = digits.images.astype(np.uint8)[:, None]
    y = digits.target.astype(np.int64)
    rng = np.random.default_rng(SEED)
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    for label in range(10):
        own = rng.permutation(np.flatnonzero(y == label))
        cuts = np.cumsum([round(share * len(own)) for share in SHARES[:2]])
        for part, indices in zip(parts, np.split(own, cuts), strict=True):
            part.extend(indices.tolist())
    order = [rng.permutation(np.array(part)) for part in parts]
    return {name: (x[i], y[i]) for name, i in zip(("train", "val", "test"), order, strict=True)}


def to_input(x: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(x.astype(np.float32) / 16)


def train(module: nn.Module, x: Tensor, y: Tensor) -> None:
    """AdamW, one-cycle learning rate, images moved by up to a pixel."""
    generator = torch.Generator().manual_seed(SEED)
    optimizer = torch.optim.AdamW(module.parameters(), RATE, weight_decay=0.05)
    steps = EPOCHS * (len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    module.train()
    for epoch in range(EPOCHS):
        total = 0.0
        for chosen in torch.randperm(len(x), generator=generator).split(BATCH)[: len(x) // BATCH]:
            down, right = torch.randint(0, 3, (2,), generator=generator).tolist()
            moved = functional.pad(x[chosen], (1, 1, 1, 1))[:, :, down : down + 8, right : right + 8]
            loss = functional.cross_entropy(module(moved), y[chosen], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1}: loss {total / (len(x) // BATCH):.3f}")
    module.eval()


def accuracy(module: nn.Module, x: Tensor, y: Tensor) -> float:
    """Top-1 percent."""
    with torch.no_grad():
        return 100 * float((module(x).argmax(1) == y).double().mean())


CARD = """\
# digits_resnet.onnx

A residual convolutional network for handwritten digits, the demonstration model of this project.

| | |
|---|---|
| made by | `tools/train_digits.py`, torch {torch}, TorchScript exporter, BatchNorm kept, opset {opset} |
| network | 5x5 stem, three stages of two residual blocks, {widths} channels, one more 5x5 |
| weights | {params:,} |
| input | `x` float32 [batch, 1, 8, 8]: grey level 0..16, divided by 16 |
| output | `output` float32 [batch, 10]: scores of the digits 0..9 |
| data | {sizes} images (train, val, test), a seeded stratified split; `digits.yaml` |
| accuracy | top-1 {val:.2f} % on val, {test:.2f} % on test |
| size | {bytes:,} bytes |
| SHA-256 | `{sha256}` |
| licence | Apache-2.0, as the project |

Trained from scratch for {epochs} epochs (AdamW, label smoothing 0.1, images moved by up to a pixel), seed
{seed}; neither val nor test was used in training. It is deliberately larger than the task needs. It is for
demonstrations and tests, not for reading anybody's handwriting.

Data: the test part of "Optical Recognition of Handwritten Digits" (E. Alpaydin, C. Kaynak, UCI Machine
Learning Repository, 1998, doi 10.24432/C50P49; CC BY 4.0), 1,797 images of 8 x 8 pixels, as bundled with
scikit-learn (`sklearn.datasets.load_digits`). Stored here as uint8; the values are unchanged.
"""


def main(arguments: list[str] | None = None) -> int:
    from onnxnas.exporting import InputSpec, export_module

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = Path(__file__).resolve().parents[1] / "models"
    parser.add_argument("out", type=Path, nargs="?", default=default)
    out: Path = parser.parse_args(arguments).out
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    parts = split_digits()
    for name, (x, y) in parts.items():
        np.savez_compressed(out / f"digits_{name}.npz", x=x, y=y)
    (out / "digits.yaml").write_text(CONFIG, encoding="utf-8")
    tensors = {name: (to_input(x), torch.from_numpy(y)) for name, (x, y) in parts.items()}
    module = DigitsResNet()
    train(module, *tensors["train"])
    file = out / "digits_resnet.onnx"
    made = export_module(module, [InputSpec("x", (1, 1, 8, 8))], file)
    print(f"{file}: differs from torch by {made.max_abs:.2g}")
    card = CARD.format(
        torch=torch.__version__.split("+")[0],
        opset=made.opset,
        widths=", ".join(map(str, WIDTHS)),
        params=sum(p.numel() for p in module.parameters()),
        sizes=", ".join(f"{len(y):,}" for _, y in parts.values()),
        val=accuracy(module, *tensors["val"]),
        test=accuracy(module, *tensors["test"]),
        bytes=file.stat().st_size,
        sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        epochs=EPOCHS,
        seed=SEED,
    )
    (out / "digits_resnet.md").write_text(card, encoding="utf-8")
    print(card)
    return 0


if __name__ == "__main__":
    sys.exit(main())
