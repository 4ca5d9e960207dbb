"""`SearchSpace`: which sub-networks there are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxnas.analysis.width import UnitLabels
from onnxnas.errors import ConfigError
from onnxnas.graph import Graph
from onnxnas.space.plan import Planner
from onnxnas.types import Block, Cost, Frozen, KernelChoice, Shape, Subnet, WidthGroup
from rewriters.edits import Edit

ELASTIC = ("depth", "width", "kernel")
Genotype = NDArray[np.int64]


@dataclass(frozen=True)
class Dimension:
    """One thing to choose. `choices` are ordered, the original network's first, the smallest last."""

    name: str
    kind: str
    choices: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class SearchSpace:
    """The sub-networks of one graph. Immutable; all methods are pure."""

    graph: Graph
    labels: UnitLabels
    blocks: tuple[Block, ...]
    groups: tuple[WidthGroup, ...]
    kernels: tuple[KernelChoice, ...]
    order: Mapping[str, NDArray[np.int64]]
    frozen: tuple[Frozen, ...]
    elastic: tuple[str, ...] = ELASTIC

    @cached_property
    def dimensions(self) -> tuple[Dimension, ...]:
        """Depth of every block, width of every group, kernel of every elastic convolution."""
        return (
            *(Dimension(b.id, "depth", (False, True)) for b in self.blocks),
            *(Dimension(g.id, "width", g.choices) for g in self.groups),
            *(Dimension(k.id, "kernel", k.choices) for k in self.kernels),
        )

    @cached_property
    def size_log10(self) -> float:
        """log10 of the number of genotypes."""
        return float(sum(np.log10(len(d.choices)) for d in self.dimensions))

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the model's digest, the dimensions and the orders."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    def maximal(self) -> Subnet:
        """The original network."""
        return Subnet()

    def minimal(self) -> Subnet:
        """Every dimension at its smallest choice."""
        return self.decode(np.asarray([len(d.choices) - 1 for d in self.dimensions], np.int64))

    def random(self, rng: np.random.Generator, elastic: Collection[str] = ELASTIC) -> Subnet:
        """Every dimension of the kinds in `elastic` drawn uniformly, the others at their original value."""
        draw = [int(rng.integers(len(d.choices))) if d.kind in elastic else 0 for d in self.dimensions]
        return self.decode(np.asarray(draw, np.int64))

    def encode(self, subnet: Subnet) -> Genotype:
        """The index of each dimension's choice. Raises ConfigError on a choice that does not exist."""
        self.validate(subnet)
        found: list[int] = []
        for d in self.dimensions:
            chosen: Any = d.choices[0]
            if d.kind == "depth":
                chosen = d.name in subnet.skip
            elif d.kind == "width":
                chosen = subnet.width.get(d.name, chosen)
            else:
                chosen = subnet.kernel.get(d.name, chosen)
            found.append(d.choices.index(chosen))
        return np.asarray(found, np.int64)

    def decode(self, genotype: Genotype) -> Subnet:
        """The sub-network of a genotype: one index for each dimension."""
        skip: list[str] = []
        width: dict[str, int] = {}
        kernel: dict[str, tuple[int, ...]] = {}
        for d, index in zip(self.dimensions, genotype, strict=True):
            choice = d.choices[int(index)]
            if choice == d.choices[0]:
                continue
            if d.kind == "depth":
                skip.append(d.name)
            elif d.kind == "width":
                width[d.name] = choice
            else:
                kernel[d.name] = choice
        return Subnet(frozenset(skip), width, kernel)

    def repair(self, subnet: Subnet) -> Subnet:
        """The nearest valid sub-network: widths and kernels rounded up to a choice, unknown names dropped."""
        skip = frozenset(b.id for b in self.blocks if b.id in subnet.skip)
        width = {
            g.id: min((c for c in g.choices if c >= subnet.width[g.id]), default=g.size)
            for g in self.groups
            if g.id in subnet.width
        }
        kernel = {
            k.id: min((c for c in k.choices if c >= subnet.kernel[k.id]), default=k.size)
            for k in self.kernels
            if k.id in subnet.kernel
        }
        return Subnet(skip, width, kernel, subnet.precision)

    def validate(self, subnet: Subnet) -> None:
        """Raises ConfigError when a name or a value does not exist here, saying what does."""
        names = {d.name: d for d in self.dimensions}
        kinds = (
            ("depth", dict.fromkeys(subnet.skip, True)),
            ("width", subnet.width),
            ("kernel", subnet.kernel),
        )
        for kind, name, value in ((kind, *item) for kind, chosen in kinds for item in chosen.items()):
            if name not in names or names[name].kind != kind:
                some = [d.name for d in self.dimensions if d.kind == kind]
                known = ", ".join(some[:8]) + (", ..." if len(some) > 8 else "") if some else "none"
                raise ConfigError(
                    f"sub-network: got {kind} of '{name}', which is not there; there are {known}"
                )
            if value not in names[name].choices:
                raise ConfigError(
                    f"sub-network: {names[name].kind} of '{name}' cannot be {value}; "
                    f"use one of {', '.join(map(str, names[name].choices))}"
                )

    def effective(self, subnet: Subnet) -> Subnet:
        """Without what cannot matter: original values, and widths and kernels that only skipped blocks use."""
        dead = self.planner.dead(subnet)
        width = {
            g.id: subnet.width[g.id]
            for g in self.groups
            if subnet.width.get(g.id, g.size) != g.size and not dead.issuperset((*g.producers, *g.consumers))
        }
        kernel = {
            k.id: subnet.kernel[k.id]
            for k in self.kernels
            if subnet.kernel.get(k.id, k.size) != k.size and k.node not in dead
        }
        return Subnet(subnet.skip, width, kernel, subnet.precision)

    @cached_property
    def planner(self) -> Planner:
        return Planner(self.graph, self.labels, self.blocks, self.groups, self.kernels, self.order)

    def plan(self, subnet: Subnet) -> tuple[Edit, ...]:
        """The edits that make this sub-network of the graph; the super-network in torch follows the same."""
        return self.planner.plan(subnet)

    def cost(self, subnet: Subnet) -> Cost:
        """Multiply-accumulates of one sample, and weights of Conv, Gemm and MatMul."""
        return self.planner.cost(subnet)

    def profile(self, subnet: Subnet) -> NDArray[np.float64]:
        """Multiply-accumulates of every layer, in a fixed order; 0 where it is skipped."""
        return self.planner.profile(subnet)

    def layers(self, subnet: Subnet) -> Iterator[tuple[str, tuple[Shape | None, ...], int]]:
        """(node, the shapes of its inputs, multiply-accumulates) of every layer that has any and is left."""
        return self.planner.layers(subnet)

    def block_costs(self) -> dict[str, Cost]:
        """By block: what skipping it alone saves."""
        return self.planner.block_costs()

    def restricted(self, choices: Mapping[str, Collection[Any]]) -> SearchSpace:
        """The same space with fewer widths or kernels for the named dimensions (the original one stays)."""
        groups = tuple(
            replace(
                g, choices=tuple(c for c in g.choices if c == g.size or c in choices.get(g.id, g.choices))
            )
            for g in self.groups
        )
        kernels = tuple(
            replace(
                k, choices=tuple(c for c in k.choices if c == k.size or c in choices.get(k.id, k.choices))
            )
            for k in self.kernels
        )
        return replace(self, groups=groups, kernels=kernels)

    def to_json(self) -> dict[str, Any]:
        """`space.json`; `build.from_json` reads it."""
        groups = []
        for g in self.groups:
            fields = {k: v for k, v in asdict(g).items() if k != "units"}
            groups.append({**fields, "choices": list(g.choices), "order": self.order[g.id].tolist()})
        return {
            "schema": 1,
            "model_sha256": self.graph.digest,
            "elastic": list(self.elastic),
            "smallest_kernel": min((min(k.choices[-1]) for k in self.kernels), default=3),
            "blocks": [asdict(b) for b in self.blocks],
            "groups": groups,
            "kernels": [asdict(k) for k in self.kernels],
            "frozen": [asdict(f) for f in self.frozen],
        }
