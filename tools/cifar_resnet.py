"""The CIFAR ResNets of the paper, to ONNX by either exporter.

    cifar_resnet.py --depth 20 --weights resnet20_cifar10.safetensors -o resnet20.onnx
    cifar_resnet.py --depth 20 --weights ... --exporter dynamo -o resnet20_dynamo.onnx [--test test.npz]

He, Zhang, Ren, Sun, Deep Residual Learning for Image Recognition, 2015, section 4.2: a 3x3 convolution to 16
channels, three stages of n blocks with 16, 32 and 64 channels, the first block of the later stages halving
the resolution, global average pooling, a linear layer; depth 6n+2. Shortcuts are of type A, without weights:
every second pixel, and channels padded with zeros, half in front and half behind.

`onnxnas export cifar_resnet.py:resnet20 --input x=1,3,32,32` finds the functions here as well.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Block(nn.Module):
    """conv3x3-BN-ReLU-conv3x3-BN, plus the shortcut, ReLU."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.widen = after - before
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.widen:
            half = self.widen // 2
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, self.widen - half))
        return functional.relu(y + x)


class CifarResNet(nn.Module):
    """Images [b, 3, 32, 32] to scores [b, 10]; `blocks` in each of the three stages."""

    def __init__(self, blocks: int, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, blocks, 1)
        self.layer2 = self._stage(16, 32, blocks, 2)
        self.layer3 = self._stage(32, 64, blocks, 2)
        self.linear = nn.Linear(64, classes)

    @staticmethod
    def _stage(before: int, after: int, blocks: int, stride: int) -> nn.Sequential:
        first = Block(before, after, stride)
        return nn.Sequential(first, *(Block(after, after, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = functional.adaptive_avg_pool2d(x, 1).flatten(1)
        scores: Tensor = self.linear(x)
        return scores


def resnet(depth: int) -> CifarResNet:
    """The network of that depth, 6n+2: 20, 32, 44, 56, 110."""
    if depth < 8 or (depth - 2) % 6:
        raise SystemExit(f"depth {depth}: expected 6n+2, such as 20 or 56")
    return CifarResNet((depth - 2) // 6)


def resnet20() -> CifarResNet:
    return resnet(20)


def resnet56() -> CifarResNet:
    return resnet(56)


def accuracy(model: Path, data: Path, limit: int | None) -> float:
    """Top-1 percent of the ONNX file on an .npz of uint8 NHWC images, by ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    with np.load(data, allow_pickle=False) as file:
        images, labels = file["x"][:limit], file["y"][:limit]
    right = 0
    for start in range(0, len(labels), 256):
        x = (images[start : start + 256].astype(np.float32) / 255 - MEAN) / STD
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2), np.float32)
        (scores,) = session.run(None, {session.get_inputs()[0].name: x})
        right += int((scores.argmax(1) == labels[start : start + 256]).sum())
    return 100 * right / len(labels)


def main(arguments: list[str] | None = None) -> int:
    from onnxnas.errors import OnnxnasError
    from onnxnas.exporting import InputSpec, export_module, load_weights

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--weights", type=Path, help="safetensors state dict; random weights without")
    parser.add_argument("--exporter", choices=("torchscript", "dynamo"), default="torchscript")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--test", type=Path, help=".npz of test images: print the accuracy on them")
    parser.add_argument("--limit", type=int, help="only that many test images")
    given = parser.parse_args(arguments)
    torch.manual_seed(0)
    network = resnet(given.depth)
    try:
        if given.weights:
            load_weights(network, given.weights)
        made = export_module(network, [InputSpec("x", (1, 3, 32, 32))], given.output, exporter=given.exporter)
    except OnnxnasError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(
        f"{made.path}: opset {made.opset}, "
        f"differs from torch by {made.max_abs:.2g} ({made.max_rel:.2g} relative)"
    )
    if given.test:
        print(f"top-1 {accuracy(given.output, given.test, given.limit):.2f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
