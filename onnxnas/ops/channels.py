"""Channel labels: which positions of which axes are the same channel.

Every elastic axis of a tensor carries an array of ids, one for each position. Equal ids, and ids that
were joined, must stay or go together. An id of -1 is a position that always stays.

A reshape can spread the channels of one axis over several (embedding -> heads x head size), so an
array of ids belongs to a *set* of axes: a `Factor`. Factors of one tensor have no axis in common, and
whatever is kept of a tensor is the product over its factors. A factor of several axes is only a
sub-network when its ids in the end depend on one of them: `static` and `collapse` join ids until they do.

Ids are joined lazily: edges are collected and the components are found once (linear time).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Ids = NDArray[np.int64]
FIXED = -1
MAX_IDS = 1 << 24  # ids of one factor: beyond this its axes are made static instead


@dataclass(frozen=True, eq=False)
class Factor:
    """`ids` has one dimension for each of `axes` (ascending), of that axis's length."""

    axes: tuple[int, ...]
    ids: Ids

    def moved(self, axes: Sequence[int]) -> Factor:
        """The same ids on other axes: `axes[i]` takes the place of `self.axes[i]`."""
        order = np.argsort(axes)
        return Factor(tuple(int(axes[i]) for i in order), self.ids.transpose(order))


Layout = tuple[Factor, ...]


class Labels:
    """Makes ids, joins them, and remembers which cannot go (`freeze`) or be permuted (`keep_order`)."""

    def __init__(self) -> None:
        self.count = 0
        self._edges: list[tuple[Ids, Ids]] = []
        self._frozen: list[tuple[Ids, str, str]] = []
        self._ordered: list[Ids] = []

    def fresh(self, n: int) -> Ids:
        """`n` new ids."""
        ids = np.arange(self.count, self.count + n, dtype=np.int64)
        self.count += n
        return ids

    def freeze(self, ids: Ids, node: str, reason: str) -> None:
        """The positions with these ids always stay."""
        ids = ids[ids >= 0].reshape(-1)
        if ids.size:
            self._frozen.append((ids, node, reason))

    def keep_order(self, ids: Ids) -> None:
        """The order of these positions matters to the function."""
        self._ordered.append(ids[ids >= 0].reshape(-1))

    def join(self, a: Ids, b: Ids, node: str, reason: str = "tied to a channel that cannot change") -> None:
        """Positions of `a` and `b` (broadcast together) stay or go together."""
        a, b = (x.reshape(-1) for x in np.broadcast_arrays(a, b))
        self.freeze(a[b < 0], node, reason)
        self.freeze(b[a < 0], node, reason)
        both = (a >= 0) & (b >= 0) & (a != b)
        if both.any():
            self._edges.append((a[both], b[both]))

    def components(self) -> tuple[int, Ids]:
        """Number of components, and the component of every id."""
        if not self._edges:
            return self.count, np.arange(self.count, dtype=np.int64)
        a = np.concatenate([e[0] for e in self._edges])
        b = np.concatenate([e[1] for e in self._edges])
        graph = coo_array((np.ones(a.size, np.int8), (a, b)), shape=(self.count, self.count))
        n, component = connected_components(graph, directed=False)
        return int(n), component.astype(np.int64)

    def frozen(self) -> list[tuple[Ids, str, str]]:
        """(ids, node, reason), in the order in which they were found."""
        return self._frozen

    def ordered(self) -> list[Ids]:
        return self._ordered

    def static(self, factor: Factor, axes: Iterable[int], node: str, reason: str) -> Factor | None:
        """What is left of `factor` when nothing may be taken from `axes`.

        Ids along these axes are joined; a factor that has no other axis is frozen and None is returned.
        """
        fixed = [i for i, axis in enumerate(factor.axes) if axis in set(axes)]
        if not fixed:
            return factor
        if len(fixed) == len(factor.axes):
            self.freeze(factor.ids, node, reason)
            return None
        first = factor.ids[tuple(slice(0, 1) if i in fixed else slice(None) for i in range(factor.ids.ndim))]
        self.join(factor.ids, first, node)
        rest = tuple(axis for i, axis in enumerate(factor.axes) if i not in fixed)
        return Factor(rest, first.reshape(tuple(factor.ids.shape[factor.axes.index(a)] for a in rest)))

    def collapse(self, factor: Factor, axis: int, node: str) -> Factor:
        """Join ids until they depend on `axis` alone."""
        rest = self.static(factor, [a for a in factor.axes if a != axis], node, "")
        assert rest is not None
        return rest


def at(layout: Layout, axis: int) -> Factor | None:
    """The factor that covers `axis`."""
    return next((f for f in layout if axis in f.axes), None)


def tidy(factor: Factor) -> Factor | None:
    """Without the axes of length 1 and those along which the ids do not vary; None when nothing is left."""
    ids, axes = factor.ids, list(factor.axes)
    for i in range(len(axes) - 1, -1, -1):
        first = ids.take([0], axis=i)
        if ids.shape[i] == 1 or (len(axes) > 1 and bool((ids == first).all())):
            ids = first.squeeze(i)
            del axes[i]
    return Factor(tuple(axes), ids) if axes else None
