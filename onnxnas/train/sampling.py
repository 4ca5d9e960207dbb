"""Which random sub-networks are worth a training step.

Drawing every dimension uniformly makes nearly all samples small: half of the blocks gone and widths in the
middle leave a tenth of the multiply-accumulates, and the gradients of such networks disturb those that
will be used. So the *size* is drawn uniformly between a floor and the whole network, and of a few random
sub-networks the one closest to it is taken (Wang et al., AttentiveNAS, 2021, section 3.2, sample sizes first
too). Each of these has its own rate of skipped blocks and its own least width, so that deep and narrow,
shallow and wide, and even and uneven ones occur.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from onnxnas.types import Subnet

if TYPE_CHECKING:
    from onnxnas.graph import Graph
    from onnxnas.space import Dimension, SearchSpace
    from rewriters.edits import Edit

TRIES = 8
LEVELS = 9  # even widths tried for the smallest one
MOST_SKIPPED = 0.5  # largest rate of skipped blocks


class SizedSampler:
    """Sub-networks of `space` with at least `floor` times the original's multiply-accumulates."""

    def __init__(self, space: SearchSpace, floor: float) -> None:
        self.space, self.floor = space, floor

    @property
    def graph(self) -> Graph:
        return self.space.graph

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        return self.space.dimensions

    def plan(self, subnet: Subnet) -> tuple[Edit, ...]:
        return self.space.plan(subnet)

    def maximal(self) -> Subnet:
        """The original network."""
        return self.space.maximal()

    def minimal(self) -> Subnet:
        """The smallest one that is even in all dimensions and not below the floor."""
        return self._smallest

    @cached_property
    def _whole(self) -> int:
        return max(self.space.cost(Subnet()).macs, 1)

    def share(self, subnet: Subnet) -> float:
        """Multiply-accumulates relative to the original network's."""
        return self.space.cost(subnet).macs / self._whole

    def random(self, rng: np.random.Generator, elastic: frozenset[str] = frozenset()) -> Subnet:
        """One whose size is uniform between the floor and 1; `elastic` limits the kinds that vary, if given."""
        wanted = rng.uniform(self.floor, 1.0)
        drawn = [self._draw(rng, elastic) for _ in range(TRIES)]
        return min(drawn, key=lambda s: (abs(self.share(s) - wanted), s.key()))

    def _draw(self, rng: np.random.Generator, elastic: frozenset[str]) -> Subnet:
        rate, reach = rng.uniform(0, MOST_SKIPPED), rng.uniform()
        genotype = []
        for d in self.space.dimensions:
            last = 1 + round(reach * (len(d.choices) - 1)) if d.kind != "depth" else 1
            chosen = int(rng.random() < rate) if d.kind == "depth" else int(rng.integers(last))
            genotype.append(chosen if not elastic or d.kind in elastic else 0)
        return self.space.decode(np.asarray(genotype, np.int64))

    @cached_property
    def _smallest(self) -> Subnet:
        found = Subnet()
        for skipped in (0, 1):
            for level in np.linspace(0, 1, LEVELS):
                genotype = [
                    skipped if d.kind == "depth" else round(level * (len(d.choices) - 1))
                    for d in self.space.dimensions
                ]
                subnet = self.space.decode(np.asarray(genotype, np.int64))
                if self.floor <= self.share(subnet) < self.share(found):
                    found = subnet
        return found
