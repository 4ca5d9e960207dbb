"""What search spaces that are made of another one share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxnas.search.problem import Dimension, Source, Space


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
