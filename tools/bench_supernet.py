"""Cost of a training step in the super-network against the same network written by hand in torch.

    python tools/bench_supernet.py [--depth 20] [--batch 128] [--rounds 15] [--threads N] [--bf16]

The CIFAR ResNet (He et al. 2015, section 4.2; shortcut A: subsampling by stride and zero channels) is written
in torch and, with the same weights, as ONNX. Steps (forward, cross entropy, backward, SGD) of the variants are
interleaved in one run, so that whatever else the machine does falls on all of them. Printed for each: images
per second, the time relative to the hand-written network (median of the rounds' ratios, 95 % interval by
bootstrap) and the multiply-accumulates relative to it.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from onnxnas import analysis, graph, space
from onnxnas.supernet import SuperNetwork


class Block(nn.Module):
    """conv3x3-BN-ReLU-conv3x3-BN, plus the shortcut, ReLU."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.extra = (c_out - c_in) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.extra:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.extra, self.extra))
        return F.relu(y + x)


class ResNet(nn.Module):
    """6n+2 layers for 32 x 32 images, 10 classes."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        widths = [16] + [16] * n + [32] * n + [64] * n
        pairs = enumerate(itertools.pairwise(widths))
        self.blocks = nn.Sequential(*(Block(a, b, 2 if a != b and i else 1) for i, (a, b) in pairs))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.bn1(self.conv1(x))))
        scores: Tensor = self.linear(x.mean((2, 3)))
        return scores


def to_onnx(net: ResNet) -> onnx.ModelProto:
    """The same network, node by node, BatchNormalization kept."""
    nodes: list[onnx.NodeProto] = []
    values: dict[str, np.ndarray] = {}

    def node(kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, list(inputs), [name + ".out"], name=name, **attributes))
        return name + ".out"

    def constant(name: str, value: Any) -> str:
        values[name] = np.asarray(value)
        return name

    def conv_bn(x: str, conv: nn.Conv2d, bn: nn.BatchNorm2d, name: str) -> str:
        constant(name + ".weight", conv.weight.detach().numpy())
        s = conv.stride[0]
        y = node("Conv", [x, name + ".weight"], name, kernel_shape=[3, 3], strides=[s, s], pads=[1, 1, 1, 1])
        parts = {"scale": bn.weight, "bias": bn.bias, "mean": bn.running_mean, "var": bn.running_var}
        for part, value in parts.items():
            assert value is not None  # BatchNorm2d tracks statistics
            constant(f"{name}.bn.{part}", value.detach().numpy())
        return node(
            "BatchNormalization", [y, *(f"{name}.bn.{p}" for p in parts)], name + ".bn", epsilon=bn.eps
        )

    x = node("Relu", [conv_bn("x", net.conv1, net.bn1, "stem")], "stem.relu")
    for i, block in enumerate(net.blocks):
        assert isinstance(block, Block)
        name = f"block{i}"
        y = node("Relu", [conv_bn(x, block.conv1, block.bn1, name + ".conv1")], name + ".relu1")
        y = conv_bn(y, block.conv2, block.bn2, name + ".conv2")
        if block.extra:
            ends = [constant(f"{name}.{k}", np.array(v, np.int64)) for k, v in
                    {"from": [0, 0], "to": [2**31, 2**31], "axes": [2, 3], "steps": [2, 2]}.items()]  # fmt: skip
            x = node("Slice", [x, *ends], name + ".slice")
            e = block.extra
            x = node(
                "Pad",
                [x, constant(name + ".pads", np.array([0, e, 0, 0, 0, e, 0, 0], np.int64))],
                name + ".pad",
            )
        x = node("Relu", [node("Add", [y, x], name + ".add")], name + ".relu2")
    x = node("Flatten", [node("GlobalAveragePool", [x], "pool")], "flatten")
    constant("linear.weight", net.linear.weight.detach().numpy())
    constant("linear.bias", net.linear.bias.detach().numpy())
    x = node("Gemm", [x, "linear.weight", "linear.bias"], "linear", transB=1)
    made = helper.make_graph(
        nodes,
        "resnet",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 32, 32])],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(np.ascontiguousarray(v), k) for k, v in values.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def step(module: nn.Module, call: Callable[[], Tensor], y: Tensor, sgd: torch.optim.Optimizer) -> float:
    """Seconds of one training step."""
    start = time.perf_counter()
    sgd.zero_grad(set_to_none=True)
    F.cross_entropy(call(), y).backward()
    sgd.step()
    return time.perf_counter() - start


def interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Median of the rounds' ratios and its 95 % bootstrap interval."""
    draws = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    return float(np.median(ratios)), float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--depth", type=int, default=20, help="6n+2 (default 20)")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--bf16", action="store_true", help="both under autocast to bfloat16")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    hand = ResNet((arguments.depth - 2) // 6)
    loaded = graph.load(to_onnx(hand))
    places = space.build(analysis.analyse(loaded))
    net = SuperNetwork(places)
    x = torch.randn(arguments.batch, 3, 32, 32)
    y = torch.randint(10, (arguments.batch,))
    with torch.no_grad():
        torch.testing.assert_close(net.eval()(x)[0], hand.eval()(x), rtol=1e-3, atol=1e-3)
    net.bf16 = arguments.bf16
    hand, net = hand.to(arguments.device).train(), net.to(arguments.device).train()
    x, y = x.to(arguments.device), y.to(arguments.device)
    settings: dict[str, Any] = {"lr": 1e-3, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4}
    by_hand, shared = (
        torch.optim.SGD(hand.parameters(), **settings),
        torch.optim.SGD(net.parameters(), **settings),
    )
    subnets = {"max": places.maximal(), "min": places.minimal()}
    for i in range(3):
        subnets[f"random {i}"] = places.random(np.random.default_rng(i))

    def written(layout: torch.memory_format) -> Callable[[], Tensor]:
        def call() -> Tensor:
            with torch.autocast(arguments.device, torch.bfloat16, enabled=arguments.bf16):
                scores: Tensor = hand(x.contiguous(memory_format=layout))
                return scores.float()

        return call

    variants: dict[str, Callable[[], float]] = {
        "hand-written": lambda: step(hand, written(torch.contiguous_format), y, by_hand),
        "hand-written, channels last": lambda: step(hand, written(torch.channels_last), y, by_hand),
    }
    for name, subnet in subnets.items():

        def run(subnet: object = subnet) -> float:
            net.activate(subnet)  # type: ignore[arg-type]
            return step(net, lambda: net(x)[0], y, shared)

        variants["super-network " + name] = run
    times: dict[str, list[float]] = {name: [] for name in variants}
    for index in range(arguments.rounds + 2):
        for name, call in variants.items():
            seconds = call()
            if arguments.device == "cuda":
                torch.cuda.synchronize()
            if index >= 2:
                times[name].append(seconds)
    macs = places.cost(places.maximal()).macs
    best = min(("hand-written", "hand-written, channels last"), key=lambda name: np.median(times[name]))
    print(
        f"torch {torch.__version__}, {arguments.device}, {arguments.threads} threads, batch {arguments.batch}"
    )
    print(f"ResNet-{arguments.depth}, bf16 {arguments.bf16}, {arguments.rounds} rounds; relative to '{best}'")
    for name, taken in times.items():
        value, low, high = interval([a / b for a, b in zip(taken, times[best], strict=True)])
        label = name.removeprefix("super-network ")
        part = places.cost(subnets[label]).macs / macs if label in subnets else 1.0
        rate = arguments.batch / float(np.median(taken))
        print(f"{name:28} {rate:8.0f} images/s   time {value:.3f} [{low:.3f}, {high:.3f}]   MACs {part:.3f}")


if __name__ == "__main__":
    main()
