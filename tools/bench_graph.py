"""Speed of everything that happens to a graph before training: inspect, and cutting a sub-network out.

    python tools/bench_graph.py [--shared ../shared] [--rounds 15] [--nodes 1000 2500 5000 10000]

1. `inspect` of residual networks of growing length, and the time per node relative to the shortest one: 1.0
   throughout when time grows linearly.
2. Cutting a sub-network out of a loaded ResNet-50 (plan, rewrite, serialise) against what ONNX Runtime needs to
   create a session of the result, in turns: median of the rounds' ratios with its 95 % bootstrap interval.
3. With `--shared`: `inspect` of every architecture of its zoo, the median and the slowest.

Imports are done before anything is timed. CPU time is that of this process and of its checking processes together:
it says what the work takes where other work makes the clock say more. Exits with 1 when a time is above what is
promised.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from onnxnas import graph
from onnxnas.pipeline.inspect import inspect
from onnxnas.testing import graphs
from onnxnas.testing.builder import Builder
from tools.coverage import zoo_models

LONG_NODES, LONG_SECONDS = 10_000, 5.0
MEDIAN_SECONDS = 1.0


def chain(nodes: int) -> onnx.ModelProto:
    """A residual network of about so many nodes, 8 channels wide."""
    per_block = len(graphs.resnet(blocks=(3,), channels=(8,)).graph.node) - len(
        graphs.resnet(blocks=(2,), channels=(8,)).graph.node
    )
    return graphs.resnet(blocks=(round(nodes / per_block),), channels=(8,))


def resnet50() -> onnx.ModelProto:
    """ResNet-50 (He et al., 2015) for 224 x 224 images, random weights."""
    b = Builder(0)
    x = b.input("x", (3, 224, 224))
    x = b.conv_bn(x, 64, number="1", kernel=7, stride=2)
    x = b.pool(x)
    for stage, (count, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), 1):
        for index in range(count):
            with b.within(f"layer{stage}.{index}"):
                stride = 2 if stage > 1 and index == 0 else 1
                y = b.conv_bn(x, width, number="1", kernel=1)
                y = b.conv_bn(y, width, number="2", stride=stride)
                y = b.conv_bn(y, 4 * width, number="3", kernel=1, relu=False)
                if index == 0:
                    x = b.conv_bn(x, 4 * width, number="s", kernel=1, stride=stride, relu=False)
                x = b.add("Relu", b.add("Add", y, x))
    return b.finish(b.head(x))


class Seconds(NamedTuple):
    """What something took: by the clock, and of CPU time in this process and its children."""

    wall: float
    cpu: float


def seconds_to_inspect(model: onnx.ModelProto | Path) -> Seconds:
    """Of one inspection, everything from the file to the document."""
    before, began = os.times(), time.perf_counter()
    inspect(model).to_json()
    wall, after = time.perf_counter() - began, os.times()
    return Seconds(wall, sum(after[:4]) - sum(before[:4]))


def lengths(counts: Sequence[int]) -> bool:
    """Print how the time grows with the number of nodes."""
    first = None
    kept = True
    for count in counts:
        model = chain(count)
        seconds = min(seconds_to_inspect(model) for _ in range(2))
        each = seconds.wall / len(model.graph.node)
        first = first or each
        print(
            f"inspect {len(model.graph.node):6,d} nodes: {seconds.wall:6.2f} s ({seconds.cpu:.2f} s of CPU), "
            f"a node {each / first:.2f} of the first's"
        )
        if len(model.graph.node) <= LONG_NODES * 1.01:
            kept = kept and seconds.wall <= LONG_SECONDS
    return kept


def cutting(rounds: int) -> bool:
    """Print the ratio of cutting out to creating a session."""
    seen = inspect(resnet50())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    ratios, times = [], []
    for index in range(rounds + 1):
        subnet = seen.space.random(np.random.default_rng(index))
        began = time.perf_counter()
        content = graph.rewritten(seen.graph, seen.space.plan(subnet)).to_bytes()
        middle = time.perf_counter()
        onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        end = time.perf_counter()
        if index:
            ratios.append((middle - began) / (end - middle))
            times.append((middle - began, end - middle))
    draws = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    cut, session = (1000 * statistics.median(column) for column in zip(*times, strict=True))
    print(
        f"ResNet-50: cut out {cut:.0f} ms, session {session:.0f} ms, "
        f"ratio {statistics.median(ratios):.2f} ({low:.2f} to {high:.2f})"
    )
    return bool(high <= 1.0)


def zoo(shared: Path) -> bool:
    """Print how long real networks take."""
    times: dict[str, Seconds] = {}
    for name, make in zoo_models(shared):
        with tempfile.TemporaryDirectory() as place:
            times[name] = seconds_to_inspect(make(Path(place)))
        print(f"inspect {name}: {times[name].wall:.2f} s ({times[name].cpu:.2f} s of CPU)", flush=True)
    middle, cpu = (statistics.median(column) for column in zip(*times.values(), strict=True))
    print(f"zoo: {len(times)} architectures, median {middle:.2f} s ({cpu:.2f} s of CPU); slowest:")
    for name in sorted(times, key=lambda name: -times[name].wall)[:5]:
        print(f"  {times[name].wall:.2f} s ({times[name].cpu:.2f} s of CPU) {name}")
    return bool(middle <= MEDIAN_SECONDS)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1000, 2500, 5000, 10000])
    options = parser.parse_args()
    kept = [lengths(options.nodes), cutting(options.rounds)]
    if options.shared:
        kept.append(zoo(options.shared))
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
