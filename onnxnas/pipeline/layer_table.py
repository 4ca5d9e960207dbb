"""How long each layer takes on its own, in the runtime and with the threads that will serve it: a look-up table.

What a candidate takes follows from its layers almost by adding up, which is what a predictor of latency has to learn
otherwise, one measured candidate after the other. A layer is a node that has multiply-accumulates, with the shapes
that a sub-network leaves it; it is cut out of a sub-network as a model of one node and timed as models are. What lies
between layers and what the runtime fuses is left to the predictor that takes the sum as one of its features.
(Cai et al., ProxylessNAS, 2019, section 3.2.)

Layers are met by drawing sub-networks. When time is up, or for a layer that no drawn one had, the time is that of the
same node with other shapes, by multiply-accumulates.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from onnxnas import graph, measure
from onnxnas.errors import ModelError
from onnxnas.types import Shape, Subnet

if TYPE_CHECKING:
    from onnxnas.space import SearchSpace

DRAWS = 400
SECONDS, QUERIES = 0.05, 200  # of one layer
Known = dict[str, dict[str, float]]  # node -> shapes -> ms


class LayerTable:
    """Milliseconds by node and shapes of its inputs; `ms` adds them up for a sub-network."""

    def __init__(self, space: SearchSpace, known: Known) -> None:
        self._space, self.known = space, known
        self._rates = _rates(space, known)

    def ms(self, subnet: Subnet) -> float:
        """The sum over the layers of a sub-network."""
        total = 0.0
        for node, shapes, macs in self._space.layers(subnet):
            found = self.known.get(node, {}).get(_key(shapes))
            total += self._rates.get(node, 0.0) * macs if found is None else found
        return total

    @classmethod
    def timed(
        cls, space: SearchSpace, measuring: measure.Measurer, *, seconds: float, seed: int = 0
    ) -> LayerTable:
        """Time the layers that random sub-networks have, for so many seconds at most.

        The original's layers are always timed. A layer that the runtime refuses as a model of its own is left out.
        """
        end = time.monotonic() + seconds
        rng = np.random.default_rng([seed, 5])
        known: Known = {}
        timed: dict[str, float | None] = {}  # by what is run: many nodes are alike
        for index, subnet in enumerate(_drawn(space, rng)):
            wanted = [
                (node, shapes)
                for node, shapes, macs in space.layers(subnet)
                if macs and _key(shapes) not in known.get(node, {})
            ]
            if not wanted:
                continue
            try:
                model = graph.rewrite(space.graph, space.plan(subnet))
            except ModelError:
                continue  # as a candidate it is refused, too
            for node, shapes in wanted:
                if index and time.monotonic() > end:
                    return cls(space, known)
                alone = graph.single_node(model, space.graph, node, shapes)
                ms = None if alone is None else _time(measuring, alone, timed)
                if ms is not None:
                    known.setdefault(node, {})[_key(shapes)] = ms
        return cls(space, known)


def _drawn(space: SearchSpace, rng: np.random.Generator) -> Iterator[Subnet]:
    yield Subnet()
    yield space.minimal()
    for _ in range(DRAWS):
        yield space.random(rng)


def _key(shapes: tuple[Shape | None, ...]) -> str:
    return " ".join("?" if shape is None else "x".join(map(str, shape)) for shape in shapes)


def _rates(space: SearchSpace, known: Known) -> dict[str, float]:
    """Milliseconds per multiply-accumulate of each node in the original."""
    return {
        node: known[node][_key(shapes)] / macs
        for node, shapes, macs in space.layers(Subnet())
        if macs and _key(shapes) in known.get(node, {})
    }


def _time(
    measuring: measure.Measurer, layer: graph.SingleNode, timed: dict[str, float | None]
) -> float | None:
    """Median milliseconds of one run; None when the runtime refuses it."""
    if layer.signature not in timed:
        try:
            _, service = measuring.serve(
                layer.content, layer.feeds, rate=None, seconds=SECONDS, queries=QUERIES
            )
            timed[layer.signature] = 1e3 * float(np.median(service))
        except measure.CandidateError:
            timed[layer.signature] = None
    return timed[layer.signature]
