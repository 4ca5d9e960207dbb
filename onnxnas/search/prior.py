"""Warm start: what an earlier search found out about the same model, on whichever host and runtime.

Its figures are not those of this search (another runtime, other threads, another machine), but what was good there
tends to be good here. Evolution begins with its best; search on predictors learns how the figures here follow from
those there, which takes far fewer measurements than learning them from nothing.
(Cummings et al., A hardware-aware framework for accelerating neural architecture search, 2022, section 4.4.)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxnas.search.front import Frame, Rows, most_volume, non_dominated
from onnxnas.search.problem import Genotype, Problem
from onnxnas.types import Subnet, Trial


@dataclass(frozen=True, eq=False)
class Prior:
    """Sub-networks that were measured elsewhere and their figures (n x k), columns by name, as they were told."""

    subnets: tuple[Subnet, ...]
    names: tuple[str, ...]
    figures: Rows

    @classmethod
    def of(cls, trials: Iterable[Trial], names: Sequence[str]) -> Prior:
        """The successful ones of finished trials, with those of the named figures that all of them have."""
        able = [t for t in trials if t.status == "ok"]
        shared = tuple(n for n in names if all(n in t.values for t in able))
        figures = np.array([[t.values[n] for n in shared] for t in able], np.float64)
        return cls(tuple(t.subnet for t in able), shared, figures.reshape(len(able), len(shared)))

    def __len__(self) -> int:
        return len(self.subnets)

    def genotypes(self, problem: Problem) -> list[Genotype]:
        """Each sub-network as the nearest genotype of the problem's space."""
        space = problem.space
        return [problem.encode(space.repair(subnet)) for subnet in self.subnets]

    def rows(self, problem: Problem) -> Rows | None:
        """(n x k), minimised, of those objectives that were figures there too; None when there is none."""
        columns = [
            sign * self.figures[:, self.names.index(o.name)]
            for o, sign in zip(problem.objectives, problem.signs, strict=True)
            if o.name in self.names
        ]
        return np.stack(columns, axis=1) if columns and len(self) else None

    def best(self, problem: Problem, count: int) -> list[Genotype]:
        """At most `count` of the front there, those that hold the most volume of it first."""
        rows = self.rows(problem)
        if rows is None:
            return []
        front = np.flatnonzero(non_dominated(rows))
        genotypes = self.genotypes(problem)
        taken = most_volume(rows[front], count, Frame.around(rows[front]))
        return [genotypes[front[i]] for i in taken]

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of everything."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """`from_json` reads it."""
        return {
            "names": list(self.names),
            "subnets": [s.to_json() for s in self.subnets],
            "figures": self.figures.tolist(),
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Prior:
        """What `to_json` made."""
        names, subnets = tuple(body["names"]), tuple(Subnet.from_json(s) for s in body["subnets"])
        figures = np.array(body["figures"], np.float64).reshape(len(subnets), len(names))
        return cls(subnets, names, figures)
