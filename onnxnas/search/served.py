"""How a sub-network is served, searched together with what it is: threads, batch, settings of the runtime.

The fastest network on one thread need not be the fastest on two, nor the best batch of a small network that of a large
one, so that settings tuned afterwards may come too late. The dimensions of a space are followed by those of serving;
`Subnet.serving` has what differs from the target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from onnxnas.search.derived import Choices, Derived
from onnxnas.search.problem import Genotype, Space
from onnxnas.types import Subnet

KIND = "serving"


class ServedSpace(Derived):
    """A space whose sub-networks are also served in different ways.

    `choices` are by the name of what is chosen; the first of each is the target's own. A value that is no choice
    here, as another run may have had, counts as the target's own.
    """

    def __init__(self, space: Space, choices: Mapping[str, Sequence[Any]]) -> None:
        self._choices = tuple(Choices(name, KIND, tuple(values)) for name, values in choices.items())
        self._own = len(space.dimensions)
        what = [[c.name, list(c.choices)] for c in self._choices]
        super().__init__(space, (*space.dimensions, *self._choices), what)

    def maximal(self) -> Subnet:
        return self._space.maximal()

    def minimal(self) -> Subnet:
        """The smallest, served as the target says: that is not what makes a network small."""
        return self._space.minimal()

    def random(self, rng: np.random.Generator) -> Subnet:
        structure = self._space.random(rng)
        return structure.served(self._values([int(rng.integers(len(c.choices))) for c in self._choices]))

    def encode(self, subnet: Subnet) -> Genotype:
        structure = np.asarray(self._space.encode(subnet.structure), np.int64)
        return np.array([*structure, *self._indices(subnet)], np.int64)

    def decode(self, genotype: Genotype) -> Subnet:
        structure = self._space.decode(np.asarray(genotype[: self._own], np.int64))
        return structure.served(self._values(genotype[self._own :]))

    def repair(self, subnet: Subnet) -> Subnet:
        return self._space.repair(subnet.structure).served(self._values(self._indices(subnet)))

    def effective(self, subnet: Subnet) -> Subnet:
        return self._space.effective(subnet.structure).served(self._values(self._indices(subnet)))

    def _indices(self, subnet: Subnet) -> list[int]:
        values = [subnet.serving.get(c.name, c.choices[0]) for c in self._choices]
        return [
            c.choices.index(value) if value in c.choices else 0
            for c, value in zip(self._choices, values, strict=True)
        ]

    def _values(self, indices: Sequence[int] | Genotype) -> dict[str, Any]:
        return {c.name: c.choices[int(i)] for c, i in zip(self._choices, indices, strict=True) if int(i) != 0}
