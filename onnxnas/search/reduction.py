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

from onnxnas.errors import ConfigError
from onnxnas.search.derived import Choices, Derived
from onnxnas.search.problem import Genotype, Space
from onnxnas.types import Subnet

FEWEST = 20


def populated(genotypes: Sequence[Genotype], upper: Genotype, threshold: float) -> list[tuple[int, ...]]:
    """By dimension the indices that at least `threshold` of the clustered ones of n genotypes have.

    Raises ConfigError for fewer than 20 genotypes.
    """
    from sklearn.cluster import HDBSCAN

    if len(genotypes) < FEWEST:
        raise ConfigError(
            f"a space can be reduced from {FEWEST} good candidates or more: got {len(genotypes)}; search longer first"
        )
    points = np.array(genotypes)
    size = max(5, len(points) // 40)
    found = HDBSCAN(min_cluster_size=size, min_samples=min(5, size), copy=True).fit(
        points / np.maximum(upper, 1)
    )
    clustered = points[found.labels_ >= 0]
    if not len(clustered):
        clustered = points
    kept = []
    for place, top in enumerate(upper):
        shares = np.bincount(clustered[:, place], minlength=int(top) + 1) / len(clustered)
        kept.append(tuple(int(i) for i in np.flatnonzero(shares >= min(threshold, shares.max()))))
    return kept


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
