"""Which sub-networks a training step runs.

| name | a step runs | source |
|---|---|---|
| `sandwich` | the maximal, the minimal and n random ones | Yu and Huang, Universally Slimmable Networks, 2019 |
| `progressive` | n random ones, elastic in depth, then also width, then also kernel | Cai et al., Once-for-All, 2020 |
| `single_stage` | n random ones, everything elastic from the start | Guo et al., Single Path One-Shot, 2020 |
| `alternating` | n, each the maximal or the minimal in a tenth of the draws, else random | both of these |
| `fixed` | the maximal one | |

The gradients of a step's sub-networks are summed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from onnxnas.errors import ConfigError
from onnxnas.plugins import is_reference, load_object
from onnxnas.supernet import PlannedGraph
from onnxnas.types import Subnet

Role = Literal["max", "min", "random"]
Pick = tuple[Subnet, Role]


class Sampler(PlannedGraph, Protocol):
    """What training needs of a search space."""

    def maximal(self) -> Subnet: ...

    def minimal(self) -> Subnet: ...

    def random(self, rng: np.random.Generator, elastic: frozenset[str] = ...) -> Subnet: ...


@runtime_checkable
class Strategy(Protocol):
    """Chooses the sub-networks of one step. Keeps no state: the same arguments give the same answer.

    `progress` runs from 0 to 1 over the training run; `rng` is fresh for each step. The maximal sub-network,
    if it is among them, comes first: with in-place distillation its outputs teach the others.
    """

    def subnets(self, progress: float, rng: np.random.Generator) -> list[Pick]: ...


class Sandwich:
    """Maximal, minimal and `n` random sub-networks."""

    def __init__(self, space: Sampler, n: int) -> None:
        self.space, self.n = space, n

    def subnets(self, progress: float, rng: np.random.Generator) -> list[Pick]:
        """Maximal first."""
        picks: list[Pick] = [(self.space.maximal(), "max"), (self.space.minimal(), "min")]
        return picks + [(self.space.random(rng), "random") for _ in range(self.n)]


class SingleStage:
    """`n` random sub-networks (at least one)."""

    def __init__(self, space: Sampler, n: int) -> None:
        self.space, self.n = space, max(n, 1)

    def subnets(self, progress: float, rng: np.random.Generator) -> list[Pick]:
        """All random."""
        return [(self.space.random(rng), "random") for _ in range(self.n)]


class Alternating:
    """`n` sub-networks (at least one), the maximal and the minimal among them now and then.

    Where a step costs what its sub-networks cost, three steps of one sub-network teach more than one step of three.
    """

    SHARE = 0.1  # of the draws, for each of the two

    def __init__(self, space: Sampler, n: int) -> None:
        self.space, self.n = space, max(n, 1)

    def subnets(self, progress: float, rng: np.random.Generator) -> list[Pick]:
        """The maximal first, if it is among them."""
        drawn = np.sort(rng.random(self.n))
        return [self._pick(float(where), rng) for where in drawn]

    def _pick(self, where: float, rng: np.random.Generator) -> Pick:
        if where < self.SHARE:
            return self.space.maximal(), "max"
        if where < 2 * self.SHARE:
            return self.space.minimal(), "min"
        return self.space.random(rng), "random"


class Progressive:
    """Stages of equal length, each making one more kind of dimension elastic; `n` random sub-networks a step.

    Only the kinds that the space has make stages.
    """

    ORDER = ("depth", "width", "kernel")

    def __init__(self, space: Sampler, n: int) -> None:
        self.space, self.n = space, max(n, 1)
        kinds = {dimension.kind for dimension in getattr(space, "dimensions", ())}
        self.stages = tuple(kind for kind in self.ORDER if kind in kinds)

    def elastic(self, progress: float) -> frozenset[str]:
        """The kinds that vary at this point of the run."""
        stage = min(int(progress * len(self.stages)), len(self.stages) - 1)
        return frozenset(self.stages[: stage + 1])

    def subnets(self, progress: float, rng: np.random.Generator) -> list[Pick]:
        """All random within the present stage."""
        elastic = self.elastic(progress)
        return [(self.space.random(rng, elastic), "random") for _ in range(self.n)]


class Fixed:
    """Only the maximal sub-network: ordinary training."""

    def __init__(self, space: Sampler, n: int) -> None:
        self.space = space

    def subnets(self, progress: float, rng: np.random.Generator) -> list[Pick]:
        """The one."""
        return [(self.space.maximal(), "max")]


STRATEGIES: Mapping[str, Callable[[Sampler, int], Strategy]] = {
    "sandwich": Sandwich,
    "progressive": Progressive,
    "single_stage": SingleStage,
    "alternating": Alternating,
    "fixed": Fixed,
}


def get_strategy(name: str, space: Sampler, n: int) -> Strategy:
    """The strategy called `name`, or made by calling `module:name` with the space and the number `n`.

    Raises ConfigError.
    """
    if is_reference(name):
        made = load_object(name, what="strategy")(space, n)
        if not isinstance(made, Strategy):
            raise ConfigError(f"strategy {name!r} gives {type(made).__name__}, which has no method 'subnets'")
        return made
    if name not in STRATEGIES:
        raise ConfigError(f"strategy {name!r} is unknown; expected {', '.join(STRATEGIES)} or module:name")
    return STRATEGIES[name](space, n)


def first_is_maximal(picks: Sequence[Pick]) -> bool:
    """Whether in-place distillation has its teacher."""
    return bool(picks) and picks[0][1] == "max"
