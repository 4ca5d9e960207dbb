"""A smaller search space, from what earlier searches of the same model ended up with (PopDB).

The candidates that were good in finished searches are clustered (HDBSCAN); what belongs to no cluster is noise. A
choice that fewer than `threshold` of the others take leaves the space. Small spaces are searched sooner; whether
something was lost can only be told by searching the whole.
(Cummings et al., A hardware-aware framework for accelerating neural architecture search across modalities, 2022,
section 4.6: min_cluster_size 50, min_samples 10, threshold 1 % for 100,000 candidates.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from onnxnas.errors import ConfigError
from onnxnas.search.derived import Choices, Derived
from onnxnas.search.front import best_layers, minimised
from onnxnas.search.problem import Genotype, Problem, Space
from onnxnas.types import Objective, Subnet, Trial

FEWEST = 20


def better_half(trials: Sequence[Trial], objectives: Sequence[Objective]) -> list[Subnet]:
    """The sub-networks of the better half of the successful trials, layer by layer from the front."""
    able = [t for t in trials if t.status == "ok"]
    if not able:
        return []
    best = best_layers(minimised(able, objectives), len(able) / 2)
    return [able[i].subnet for i in np.sort(best)]


def populated(space: Space, subnets: Sequence[Subnet], threshold: float) -> dict[str, list[int]]:
    """By dimension the indices of the choices that at least `threshold` of the clustered ones of n sub-networks take.

    Where a choice makes no difference to a sub-network, as the width of a block that it skips, it has no say; what no
    sub-network has a say in keeps all choices. Raises ConfigError for fewer than 20 sub-networks.
    """
    from sklearn.cluster import HDBSCAN

    if len(subnets) < FEWEST:
        raise ConfigError(
            f"a space can be reduced from {FEWEST} good candidates or more: got {len(subnets)}; search longer first"
        )
    problem = Problem(space, ())
    upper = problem.upper
    points = np.array([problem.encode(space.repair(subnet)) for subnet in subnets])
    size = max(5, len(points) // 40)
    found = HDBSCAN(min_cluster_size=size, min_samples=min(5, size), copy=True).fit(
        points / np.maximum(upper, 1)
    )
    clustered = points[found.labels_ >= 0]
    if not len(clustered):
        clustered = points
    says = np.array([_matters(problem, genotype) for genotype in clustered])
    kept = {}
    for place, dimension in enumerate(space.dimensions):
        taken = clustered[says[:, place], place]
        shares = np.bincount(taken, minlength=int(upper[place]) + 1) / max(1, len(taken))
        kept[dimension.name] = [int(i) for i in np.flatnonzero(shares >= min(threshold, shares.max()))]
    return kept


def _matters(problem: Problem, genotype: Genotype) -> NDArray[np.bool_]:
    """(d,) by dimension whether another choice than that of this genotype is another candidate."""
    key = problem.key(genotype)
    other = np.where(genotype < problem.upper, genotype + 1, genotype - 1)
    moved = [np.where(np.arange(len(genotype)) == place, other, genotype) for place in range(len(genotype))]
    return np.array(
        [top > 0 and problem.key(one) != key for top, one in zip(problem.upper, moved, strict=True)]
    )


class ReducedSpace(Derived):
    """A space with some of the choices of another one, by name; dimensions that are not named keep all.

    Sub-networks outside of it are encoded as their nearest neighbours inside.
    """

    def __init__(self, space: Space, choices: Mapping[str, Sequence[int]]) -> None:
        unknown = sorted(choices.keys() - {d.name for d in space.dimensions})
        if unknown:
            raise ConfigError(f"reduced space: no dimension {', '.join(unknown)} in this model")
        self._kept = [
            np.array(sorted(choices.get(d.name, range(len(d.choices)))), np.int64) for d in space.dimensions
        ]
        for d, kept in zip(space.dimensions, self._kept, strict=True):
            if not len(kept) or kept[0] < 0 or kept[-1] >= len(d.choices):
                raise ConfigError(
                    f"reduced space: choices of {d.name}: got {kept.tolist()}, expected some of 0..{len(d.choices) - 1}"
                )
        left = [
            Choices(d.name, d.kind, tuple(d.choices[i] for i in kept))
            for d, kept in zip(space.dimensions, self._kept, strict=True)
        ]
        super().__init__(space, left, [kept.tolist() for kept in self._kept])

    def maximal(self) -> Subnet:
        return self.decode(np.zeros(len(self._kept), np.int64))

    def minimal(self) -> Subnet:
        return self.repair(self.decode(np.array([len(kept) - 1 for kept in self._kept], np.int64)))

    def random(self, rng: np.random.Generator) -> Subnet:
        drawn = [int(rng.integers(len(kept))) for kept in self._kept]
        return self.repair(self.decode(np.array(drawn, np.int64)))

    def encode(self, subnet: Subnet) -> Genotype:
        whole = np.asarray(self._space.encode(subnet), np.int64)
        nearest = [int(np.argmin(np.abs(kept - i))) for kept, i in zip(self._kept, whole, strict=True)]
        return np.array(nearest, np.int64)

    def decode(self, genotype: Genotype) -> Subnet:
        whole = [kept[int(i)] for kept, i in zip(self._kept, genotype, strict=True)]
        return self._space.decode(np.array(whole, np.int64))

    def repair(self, subnet: Subnet) -> Subnet:
        return self.decode(self.encode(self._space.repair(subnet)))

    def effective(self, subnet: Subnet) -> Subnet:
        return self._space.effective(subnet)
