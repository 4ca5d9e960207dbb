"""The search seen from an algorithm: genotypes in, minimised objectives out.

A candidate passes through three forms. The *genotype* is what algorithms recombine: an index into each
dimension's choices, largest network first. The *repaired* genotype is a valid one. The *effective*
sub-network has everything that cannot matter (a width used only inside a skipped block) at its original
value; two genotypes with the same effective sub-network are the same candidate.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnxnas.types import Objective, Subnet

if TYPE_CHECKING:
    from onnxnas.search.prior import Prior

Genotype = NDArray[np.int64]
STRUCTURE = ("depth", "width", "kernel")


class Dimension(Protocol):
    """One choice of the search space; `choices` lead from the largest network to the smallest."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def choices(self) -> Sequence[Any]: ...


class Source(Protocol):
    """The model that a search space was made of."""

    @property
    def digest(self) -> str: ...


class Space(Protocol):
    """What the search needs of a search space (`onnxnas.space.SearchSpace` is one)."""

    @property
    def graph(self) -> Source: ...
    @property
    def dimensions(self) -> Sequence[Dimension]: ...
    @property
    def digest(self) -> str: ...
    def maximal(self) -> Subnet: ...
    def minimal(self) -> Subnet: ...
    def random(self, rng: np.random.Generator) -> Subnet: ...
    def encode(self, subnet: Subnet) -> NDArray[Any]: ...
    def decode(self, genotype: NDArray[Any]) -> Subnet: ...
    def repair(self, subnet: Subnet) -> Subnet: ...
    def effective(self, subnet: Subnet) -> Subnet: ...


@dataclass(frozen=True)
class Hint:
    """What can be said of an objective without measuring: `of` a sub-network, exactly or but for a line.

    A `costly` one takes a share of a measurement: it is asked of chosen candidates and predicted for the others.
    """

    of: Callable[[Subnet], float]
    exact: bool = False
    costly: bool = False


class Problem:
    """A search space and the objectives, with the answers about a genotype kept.

    `upper` (d,) is the largest index of each dimension; `ordered` (d,) says where neighbouring indices are
    neighbouring networks (widths, kernels), as opposed to switches and categories (depth, precision); `structural`
    (d,) which say what the network is, as opposed to its numbers and how it is served.
    `prior` is what another search found out, if there was one; `hints` are by the objective's name.
    """

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective],
        prior: Prior | None = None,
        hints: Mapping[str, Hint] | None = None,
    ) -> None:
        self.space = space
        self.objectives = tuple(objectives)
        self.prior = prior
        self.hints = dict(hints or {})
        self.upper: Genotype = np.array([len(d.choices) - 1 for d in space.dimensions], dtype=np.int64)
        self.kinds = tuple(d.kind for d in space.dimensions)
        self.structural: NDArray[np.bool_] = np.array([k in STRUCTURE for k in self.kinds], dtype=bool)
        self.ordered: NDArray[np.bool_] = np.array([k in ("width", "kernel") for k in self.kinds], dtype=bool)
        self.signs = np.array([-1.0 if o.maximise else 1.0 for o in self.objectives])
        self._known: dict[bytes, tuple[Subnet, str]] = {}

    def limited(self, point: NDArray[np.float64]) -> Problem:
        """The same with other limits: those of a point (m,), minimised, and none where it is NaN."""
        other = copy.copy(self)
        limits = [None if np.isnan(x) else float(x) for x in self.signs * point]
        other.objectives = tuple(
            replace(o, limit=limit) for o, limit in zip(self.objectives, limits, strict=True)
        )
        return other

    def encode(self, subnet: Subnet) -> Genotype:
        """The genotype (d,) of a sub-network."""
        return np.asarray(self.space.encode(subnet), dtype=np.int64)

    def repair(self, genotype: Genotype) -> Genotype:
        """The valid genotype (d,) nearest to the given one."""
        return self.encode(self.space.repair(self.space.decode(genotype)))

    def subnet(self, genotype: Genotype) -> Subnet:
        """The effective sub-network of a repaired genotype."""
        return self._look_up(genotype)[0]

    def key(self, genotype: Genotype) -> str:
        """Equal for genotypes that are the same candidate."""
        return self._look_up(genotype)[1]

    def _look_up(self, genotype: Genotype) -> tuple[Subnet, str]:
        raw = np.asarray(genotype, dtype=np.int64).tobytes()
        found = self._known.get(raw)
        if found is None:
            subnet = self.space.effective(self.space.decode(genotype))
            found = self._known[raw] = (subnet, subnet.key())
        return found

    def minimised(self, values: Mapping[str, float] | None) -> NDArray[np.float64]:
        """Objective values (m,) turned so that smaller is better; +inf everywhere for a failed candidate."""
        if values is None:
            return np.full(len(self.objectives), np.inf)
        return self.signs * np.array([values[o.name] for o in self.objectives], dtype=np.float64)

    def violations(self, minimised: NDArray[np.float64]) -> NDArray[np.float64]:
        """By how much each of n candidates misses the limits: (n x m) -> (n x l), relative, >= 0.

        One column per objective with a limit; in units of the limit's own size so that several can be added.
        """
        columns = [
            np.maximum(minimised[:, i] - self.signs[i] * o.limit, 0.0) / max(abs(o.limit), 1e-12)
            for i, o in enumerate(self.objectives)
            if o.limit is not None
        ]
        return np.stack(columns, axis=1) if columns else np.zeros((len(minimised), 0))
