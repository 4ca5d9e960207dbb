"""A transformer and a network of large kernels, trained on Fashion-MNIST and exported, to try the tool on.

    python tools/train_fashion.py ../shared/data fashion --network vit        # or: --network kernels

Reads SHARED_DATA/datasets/fashion_mnist_subset.npz (16,000 + 4,000 images of 28 x 28, ten classes of clothing) and
writes OUT/train.npz, OUT/val.npz, OUT/test.npz (x uint8 [n, 1, 28, 28], y int64 [n]), OUT/fashion.yaml and
OUT/NETWORK.onnx. The validation images are 2,000 of the 16,000, as many of each class as its share; neither they nor
the test images are used in training.

| network | is |
|---|---|
| `vit` | 49 patches of 4 x 4, six pre-norm blocks of attention and GELU MLP, mean of tokens (Dosovitskiy et al. 2021) |
| `kernels` | 7x7 stem, three residual blocks of two 5x5, inverted ones of 5x5 and 7x7 depthwise (Sandler et al. 2018) |

Data: Xiao, Rasul, Vollgraf, Fashion-MNIST, 2017.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from onnxnas import data
from onnxnas.data.torch_batches import TorchBatches
from onnxnas.train.precision import bf16_helps
from onnxnas.types import TensorInfo

SEED = 11
SIDE, CLASSES, VALIDATION = 28, 10, 1 / 8
CONFIG = """\
# Fashion-MNIST, 28 x 28 grey levels. A mirrored shirt is a shirt.
train: train.npz
val: val.npz
test: test.npz
layout: nchw
scale: 1/255
mean: [0.286]
std: [0.353]
augment: [crop, flip]
task: classification
metric: top1
"""


class Attention(nn.Module):
    """Self-attention of `heads` heads on tokens [b, n, width]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        shape = (batch, tokens, self.heads, width // self.heads)
        q, k, v = (f(x).reshape(shape).transpose(1, 2) for f in (self.query, self.key, self.value))
        scores = q @ k.transpose(2, 3) / math.sqrt(width // self.heads)
        mixed: Tensor = self.out((scores.softmax(3) @ v).transpose(1, 2).reshape(batch, tokens, width))
        return mixed


class TransformerBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)): tokens [b, n, width] to the same."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        mixed: Tensor = x + self.mlp(self.norm2(x))
        return mixed


class VisionTransformer(nn.Module):
    """Images [b, 1, 28, 28] to scores [b, 10]."""

    def __init__(
        self, width: int = 64, heads: int = 4, hidden: int = 256, blocks: int = 6, patch: int = 4
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, patch, patch)
        self.place = nn.Parameter(0.02 * torch.randn(1, (SIDE // patch) ** 2, width))
        self.blocks = nn.Sequential(*(TransformerBlock(width, heads, hidden) for _ in range(blocks)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.place
        scores: Tensor = self.head(self.norm(self.blocks(x)).mean(1))
        return scores


def conv_bn(before: int, after: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution that keeps the size (or divides it by the stride), and BatchNormalization."""
    conv = nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(after))


class Plain(nn.Module):
    """x + conv-BN-ReLU-conv-BN, ReLU: [b, width, h, w] to the same."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_bn(width, width, kernel), nn.ReLU(), conv_bn(width, width, kernel))

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.body(x))


class Inverted(nn.Module):
    """1x1-BN-ReLU, depthwise-BN-ReLU, 1x1-BN; plus x where the shape stays."""

    def __init__(self, before: int, after: int, kernel: int, stride: int = 1, expansion: int = 3) -> None:
        super().__init__()
        inner = expansion * before
        self.same = stride == 1 and before == after
        self.body = nn.Sequential(
            conv_bn(before, inner, 1),
            nn.ReLU(),
            conv_bn(inner, inner, kernel, stride, inner),
            nn.ReLU(),
            conv_bn(inner, after, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return x + y if self.same else y


class LargeKernels(nn.Module):
    """Images [b, 1, 28, 28] to scores [b, 10]: `plain` blocks at 14 x 14, `inverted` ones at 7 x 7."""

    def __init__(self, widths: tuple[int, int] = (16, 48), plain: int = 3, inverted: int = 3) -> None:
        super().__init__()
        first, second = widths
        self.stem = nn.Sequential(conv_bn(1, first, 7, 2), nn.ReLU())
        self.plain = nn.Sequential(*(Plain(first, 5) for _ in range(plain)))
        self.inverted = nn.Sequential(
            Inverted(first, second, 5, 2), *(Inverted(second, second, 7) for _ in range(inverted))
        )
        self.head = nn.Linear(second, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.inverted(self.plain(self.stem(x))))
        scores: Tensor = self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))
        return scores


@dataclass(frozen=True)
class Recipe:
    """A network and how it is trained, by AdamW with warm-up and half a cosine."""

    network: Callable[[], nn.Module]
    epochs: int
    rate: float
    decay: float
    warmup: float = 0.1
    batch: int = 128
    bf16: bool = False  # where the processor has it


RECIPES: Mapping[str, Recipe] = {
    "vit": Recipe(VisionTransformer, 16, 2e-3, 0.05, bf16=True),
    "kernels": Recipe(LargeKernels, 6, 5e-3, 0.05),
}


def prepare(source: Path, out: Path) -> None:
    """Writes the three splits and fashion.yaml."""
    file = source / "datasets" / "fashion_mnist_subset.npz"
    if not file.is_file():
        raise SystemExit(
            f"{file}: no such file; give the folder that holds datasets/fashion_mnist_subset.npz"
        )
    with np.load(file, allow_pickle=False) as stored:
        x, y = stored["train_images"], stored["train_labels"].astype(np.int64)
        test = stored["test_images"], stored["test_labels"].astype(np.int64)
    held = held_out(y)
    parts = {"train": (x[~held], y[~held]), "val": (x[held], y[held]), "test": test}
    out.mkdir(parents=True, exist_ok=True)
    for name, (images, labels) in parts.items():
        np.savez(out / f"{name}.npz", x=images[:, None], y=labels)
        print(f"{out / name}.npz: {len(labels):,} images, {np.bincount(labels).tolist()} a class")
    (out / "fashion.yaml").write_text(CONFIG, encoding="utf-8")


def held_out(y: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which samples are for validation: of each class the same share, drawn with a seed."""
    rng, held = np.random.default_rng(SEED), np.zeros(len(y), np.bool_)
    for label in np.unique(y):
        own = rng.permutation(np.flatnonzero(y == label))
        held[own[: round(VALIDATION * len(own))]] = True
    return held


def train(module: nn.Module, dataset: data.DataSet, recipe: Recipe) -> None:
    """Cross entropy with label smoothing 0.1 on images shifted and mirrored as `augment` says."""
    decayed = [p for p in module.parameters() if p.ndim > 1]
    others = [p for p in module.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, recipe.rate)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in its stub
    batches = TorchBatches(dataset.train, dataset, channels_last=True)
    steps = recipe.epochs * batches.count(recipe.batch)

    def rate(step: int) -> float:
        progress = step / steps
        if progress < recipe.warmup:
            return (step + 1) / (recipe.warmup * steps)
        return 0.5 * (1 + math.cos(math.pi * (progress - recipe.warmup) / (1 - recipe.warmup)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    bf16 = recipe.bf16 and bf16_helps(torch.device("cpu"))
    module.train()
    began = time.process_time()
    for epoch in range(recipe.epochs):
        total = 0.0
        for x, y in batches.epoch(recipe.batch, seed=SEED, epoch=epoch):
            assert y is not None
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                scores = module(x["x"])
            loss = functional.cross_entropy(scores.float(), y, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        seconds = time.process_time() - began
        print(f"epoch {epoch + 1}: loss {total * recipe.batch / batches.n:.3f}, {seconds:.0f} s", flush=True)
    module.eval()


def accuracy(module: nn.Module, dataset: data.DataSet, split: str) -> float:
    """Top-1 percent."""
    batches, right = TorchBatches(dataset.split(split), dataset), 0
    with torch.no_grad():
        for x, y in batches.epoch(256, shuffle=False, augment=False, drop_last=False):
            assert y is not None
            right += int((module(x["x"]).argmax(1) == y).sum())
    return 100 * right / batches.n


def main(arguments: list[str] | None = None) -> int:
    from onnxnas.exporting import InputSpec, export_module

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path, metavar="SHARED_DATA")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--network", choices=RECIPES, required=True)
    parser.add_argument("--exporter", choices=("torchscript", "dynamo"), default="torchscript")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    prepare(given.source, given.out)
    image = TensorInfo("x", np.dtype(np.float32), (1, 1, SIDE, SIDE), ("batch", 1, SIDE, SIDE))
    dataset = data.load(given.out / "fashion.yaml", [image])
    recipe = RECIPES[given.network]
    module = recipe.network()
    train(module, dataset, recipe)
    file = given.out / f"{given.network}.onnx"
    made = export_module(module, [InputSpec("x", (1, 1, SIDE, SIDE))], file, exporter=given.exporter)
    parameters = sum(p.numel() for p in module.parameters())
    print(f"{file}: {parameters:,} parameters, opset {made.opset}, differs from torch by {made.max_abs:.2g}")
    print(
        f"top-1 {accuracy(module, dataset, 'val'):.2f} % on val, {accuracy(module, dataset, 'test'):.2f} % on test"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
