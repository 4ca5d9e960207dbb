"""Search spaces that are made of another one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxnas.search.problem import Dimension, Genotype, Source, Space
from onnxnas.types import Subnet


@dataclass(frozen=True)
class Choices:
    """One dimension of such a space."""

    name: str
    kind: str
    choices: tuple[Any, ...]


class Derived:
    """The model is the other space's; `what` says, as JSON values, how the two differ."""

    def __init__(self, space: Space, dimensions: Sequence[Dimension], what: Any) -> None:
        self._space, self._what = space, what
        self.dimensions = tuple(dimensions)
        self.profile = getattr(space, "profile", None)

    @property
    def graph(self) -> Source:
        return self._space.graph

    @property
    def size_log10(self) -> float:
        """log10 of the number of genotypes."""
        return float(sum(np.log10(len(d.choices)) for d in self.dimensions))

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the other space's digest and of the difference."""
        return hashlib.sha256(json.dumps([self._space.digest, self._what]).encode()).hexdigest()


class Extended(Derived):
    """A space whose sub-networks have more chosen than the other space knows; its dimensions come last.

    `choices` are by the name of what is chosen; the first of each is what a sub-network has that says nothing. A
    value that is no choice here, as another run may have had, counts as that.
    """

    def __init__(self, space: Space, kind: str, choices: Mapping[str, Sequence[Any]]) -> None:
        self._choices = tuple(Choices(name, kind, tuple(values)) for name, values in choices.items())
        self._own = len(space.dimensions)
        what = [[c.name, list(c.choices)] for c in self._choices]
        super().__init__(space, (*space.dimensions, *self._choices), what)

    def told(self, subnet: Subnet) -> Mapping[str, Any]:
        """What `subnet` says of the choices."""
        raise NotImplementedError

    def with_told(self, subnet: Subnet, values: Mapping[str, Any]) -> Subnet:
        """`subnet` saying `values` of the choices and nothing else."""
        raise NotImplementedError

    def maximal(self) -> Subnet:
        return self._first(self._space.maximal())

    def minimal(self) -> Subnet:
        """The smallest as it is by itself: what is chosen besides does not make a network small."""
        return self._first(self._space.minimal())

    def random(self, rng: np.random.Generator) -> Subnet:
        structure = self._space.random(rng)
        return self._chosen(structure, [int(rng.integers(len(c.choices))) for c in self._choices])

    def encode(self, subnet: Subnet) -> Genotype:
        structure = np.asarray(self._space.encode(self.with_told(subnet, {})), np.int64)
        return np.array([*structure, *self._indices(subnet)], np.int64)

    def decode(self, genotype: Genotype) -> Subnet:
        structure = self._space.decode(np.asarray(genotype[: self._own], np.int64))
        return self._chosen(structure, genotype[self._own :])

    def repair(self, subnet: Subnet) -> Subnet:
        return self._chosen(self._space.repair(self.with_told(subnet, {})), self._indices(subnet))

    def effective(self, subnet: Subnet) -> Subnet:
        return self._chosen(self._space.effective(self.with_told(subnet, {})), self._indices(subnet))

    def _first(self, structure: Subnet) -> Subnet:
        return self._chosen(structure, [0] * len(self._choices))

    def _indices(self, subnet: Subnet) -> list[int]:
        told = self.told(subnet)
        values = [told.get(c.name, c.choices[0]) for c in self._choices]
        return [
            c.choices.index(value) if value in c.choices else 0
            for c, value in zip(self._choices, values, strict=True)
        ]

    def _chosen(self, structure: Subnet, indices: Sequence[int] | Genotype) -> Subnet:
        values = {c.name: c.choices[int(i)] for c, i in zip(self._choices, indices, strict=True)}
        return self.with_told(structure, values)
