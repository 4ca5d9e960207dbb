"""How long each layer takes on its own, in the runtime and with the threads that will serve it: a look-up table.

What a candidate takes follows from its layers almost by adding up, which is what a predictor of latency has to learn
otherwise, one measured candidate after the other. A layer is a node that has multiply-accumulates, with the shapes
that a sub-network leaves it; it is cut out of a sub-network as a model of one node and timed as models are. What lies
between layers and what the runtime fuses is left to the predictor that takes the sum as one of its features.
(Cai et al., ProxylessNAS, 2019, section 3.2.)

Layers are met by drawing sub-networks, then timed in turns, several times over: a machine that others use is slower for
seconds at a time, and the least of several medians is what a layer takes when it is let alone. For a layer that no
drawn sub-network had, or for which time was up, the time is that of the same node with other shapes, by
multiply-accumulates.
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
ROUNDS = 4
SECONDS, QUERIES = 0.02, 100  # of one layer in one round
LARGEST = 1 << 28  # bytes of layers that are held to be timed
Known = dict[str, dict[str, float]]  # node -> shapes -> ms


class LayerTable:
    """Milliseconds by node and shapes of its inputs; `ms` adds them up for a sub-network."""

    def __init__(self, space: SearchSpace, known: Known) -> None:
        self._space, self.known = space, known
        self._rates = _rates(space, known)
        self._told: dict[tuple[str, tuple[Shape | None, ...]], float] = {}

    def ms(self, subnet: Subnet) -> float:
        """The sum over the layers of a sub-network."""
        return sum(self._layer(*layer) for layer in self._space.layers(subnet))

    def _layer(self, node: str, shapes: tuple[Shape | None, ...], macs: int) -> float:
        if (node, shapes) not in self._told:
            found = self.known.get(node, {}).get(_key(shapes))
            self._told[node, shapes] = self._rates.get(node, 0.0) * macs if found is None else found
        return self._told[node, shapes]

    @classmethod
    def timed(
        cls, space: SearchSpace, measuring: measure.Measurer, *, seconds: float, seed: int = 0
    ) -> LayerTable:
        """Time the layers that random sub-networks have, for so many seconds at most; the original's at least once.

        A layer that the runtime refuses as a model of its own is left out.
        """
        end = time.monotonic() + seconds
        found = _Met(space)
        found.meet(Subnet())
        original = len(found.layers)
        for subnet in _drawn(space, np.random.default_rng([seed, 5])):
            if time.monotonic() > end - seconds / 2 or found.bytes > LARGEST:
                break
            found.meet(subnet)
        least: dict[str, float] = {}
        for turn in range(ROUNDS):
            for place, (signature, layer) in enumerate(found.layers.items()):
                if time.monotonic() > end and (turn or place >= original):
                    break
                ms = _time(measuring, layer)
                if ms is not None:
                    least[signature] = min(ms, least.get(signature, ms))
        known: Known = {}
        for node, forms in found.signatures.items():
            for key, signature in forms.items():
                if signature in least:
                    known.setdefault(node, {})[key] = least[signature]
        return cls(space, known)


class _Met:
    """Layers met in sub-networks: by what is run, since many nodes are alike, and by node and shapes."""

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self.layers: dict[str, graph.SingleNode] = {}
        self.signatures: dict[str, dict[str, str]] = {}
        self.bytes = 0

    def meet(self, subnet: Subnet) -> None:
        """Take in the layers of a sub-network that are new; none of one that cannot be made."""
        wanted = [
            (node, shapes)
            for node, shapes, macs in self._space.layers(subnet)
            if macs and _key(shapes) not in self.signatures.get(node, {})
        ]
        if not wanted:
            return
        whole = self._space.graph
        try:
            model = graph.rewrite(whole, self._space.plan(subnet))
        except ModelError:
            return
        for node, shapes in wanted:
            layer = graph.single_node(model, whole, node, shapes)
            if layer is None:
                continue
            self.signatures.setdefault(node, {})[_key(shapes)] = layer.signature
            if layer.signature not in self.layers:
                self.layers[layer.signature] = layer
                self.bytes += len(layer.content) + sum(array.nbytes for array in layer.feeds.values())


def _drawn(space: SearchSpace, rng: np.random.Generator) -> Iterator[Subnet]:
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


def _time(measuring: measure.Measurer, layer: graph.SingleNode) -> float | None:
    """Median milliseconds of one run; None when the runtime refuses it."""
    try:
        _, service = measuring.serve(layer.content, layer.feeds, rate=None, seconds=SECONDS, queries=QUERIES)
    except measure.CandidateError:
        return None
    return 1e3 * float(np.median(service))
