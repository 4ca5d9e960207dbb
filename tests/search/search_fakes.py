"""Search spaces and evaluators with known answers. Also imported by the process that a test kills."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onnxnas.types import Cost, Measurement, Objective, Subnet, Trial

ZDT = (Objective("f1", "", maximise=False), Objective("f2", "", maximise=False))
NETWORK = (Objective("quality", "%", maximise=True), Objective("latency", "ms", maximise=False))


@dataclass(frozen=True)
class FakeDimension:
    name: str
    kind: str
    choices: tuple[Any, ...]


@dataclass(frozen=True)
class FakeGraph:
    digest: str = "a" * 64


@dataclass
class FakeSpace:
    """`blocks` blocks that can be skipped, the i-th with a width group used inside it only, then `free` groups.

    Widths are `steps` .. 1. Repair: blocks 0 and 1 are never both skipped, block 0 stays.
    """

    blocks: int
    free: int
    steps: int
    graph: FakeGraph = field(default_factory=FakeGraph)

    def __post_init__(self) -> None:
        widths = tuple(range(self.steps, 0, -1))
        depth = [FakeDimension(f"b{i}", "depth", (False, True)) for i in range(self.blocks)]
        width = [FakeDimension(f"g{i}", "width", widths) for i in range(self.blocks + self.free)]
        self.dimensions = (*depth, *width)
        shape = f"{self.blocks} {self.free} {self.steps} {self.graph.digest}"
        self.digest = hashlib.sha256(shape.encode()).hexdigest()

    def maximal(self) -> Subnet:
        return Subnet()

    def minimal(self) -> Subnet:
        return self.repair(
            Subnet(frozenset(f"b{i}" for i in range(self.blocks)), {d.name: 1 for d in self._groups()})
        )

    def random(self, rng: np.random.Generator) -> Subnet:
        return self.repair(self.decode(np.array([rng.integers(len(d.choices)) for d in self.dimensions])))

    def encode(self, subnet: Subnet) -> np.ndarray:
        skip = [int(f"b{i}" in subnet.skip) for i in range(self.blocks)]
        return np.array(skip + [self.steps - subnet.width.get(d.name, self.steps) for d in self._groups()])

    def decode(self, genotype: np.ndarray) -> Subnet:
        skip = frozenset(f"b{i}" for i in range(self.blocks) if genotype[i])
        widths = zip(self._groups(), genotype[self.blocks :], strict=True)
        return Subnet(skip, {d.name: self.steps - int(i) for d, i in widths if i})

    def repair(self, subnet: Subnet) -> Subnet:
        both = {"b0", "b1"} <= subnet.skip
        return Subnet(subnet.skip - {"b0"}, subnet.width) if both else subnet

    def effective(self, subnet: Subnet) -> Subnet:
        kept = {g: w for g, w in subnet.width.items() if f"b{g[1:]}" not in subnet.skip and w < self.steps}
        return Subnet(subnet.skip, kept)

    def cost(self, subnet: Subnet) -> Cost:
        units = sum(subnet.width.get(d.name, self.steps) for d in self._groups())
        return Cost(macs=units * 100, params=units)

    def _groups(self) -> tuple[FakeDimension, ...]:
        return self.dimensions[self.blocks :]


@dataclass
class ZdtEvaluator:
    """ZDT1 on integer widths, its optimum moved away from the corners: the front is f2 = 1 - sqrt(f1).

    f1 comes from g0 alone; on the front every other group has the width two thirds down its range.
    """

    space: FakeSpace
    seen: list[Subnet] = field(default_factory=list)

    def values(self, subnet: Subnet) -> dict[str, float]:
        top = self.space.steps - 1
        x = self.space.encode(subnet)[self.space.blocks :] / top
        best = round(top * 2 / 3) / top
        g = 1 + 9 * float(np.mean(np.abs(x[1:] - best)))
        return {"f1": float(x[0]), "f2": g * (1 - float(np.sqrt(x[0] / g)))}

    def evaluate(self, subnet: Subnet, number: int) -> Trial:
        self.seen.append(subnet)
        return Trial(number, subnet, "ok", self.values(subnet))


@dataclass
class NetworkEvaluator:
    """Quality falls faster the narrower a layer is, by layers of different weight; latency is linear.

    `broken` maps trial numbers to the status they get.
    """

    space: FakeSpace
    broken: dict[int, Any] = field(default_factory=dict)
    seen: list[Subnet] = field(default_factory=list)

    def evaluate(self, subnet: Subnet, number: int) -> Trial:
        self.seen.append(subnet)
        if number in self.broken:
            return Trial(
                number, subnet, self.broken[number], {}, seconds=0.01, error=f"made to fail: {number}"
            )
        quality, latency = 95.0, 1.0
        for i, d in enumerate(self.space.dimensions[self.space.blocks :]):
            share = subnet.width.get(d.name, self.space.steps) / self.space.steps
            if f"b{i}" in subnet.skip:
                quality -= 1.0 + 0.3 * (i * 7 % 5)
                continue
            quality -= (0.2 + 0.5 * (i * 3 % 4)) * (1 - share) ** 2
            latency += (1 + i * 5 % 3) * share
        interval = Measurement(latency, latency * 0.98, latency * 1.02, 30, "ms", "short")
        return Trial(
            number, subnet, "ok", {"quality": quality, "latency": latency}, {"latency": interval}, 0.01
        )
