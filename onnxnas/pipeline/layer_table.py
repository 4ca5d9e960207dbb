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

import hashlib
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper

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
                alone = _alone(model, space.graph, node, shapes)
                ms = None if alone is None else _time(measuring, *alone, timed)
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


def _alone(
    model: onnx.ModelProto, whole: graph.Graph, name: str, shapes: tuple[Shape | None, ...]
) -> tuple[bytes, dict[str, Any]] | None:
    """One node of a model as a model, and inputs for it; None where a shape or a type is not known."""
    node = next((n for n in model.graph.node if n.name == name), None)
    if node is None:
        return None
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    names = whole.node(name).inputs
    rng = np.random.default_rng(0)
    inputs, feeds = [], {}
    for own, original, shape in zip(node.input, names, shapes, strict=False):
        if own and own not in constants and own not in feeds:
            dtype = whole.tensors[original].dtype
            if shape is None or dtype is None or dtype.kind != "f":
                return None
            feeds[own] = rng.standard_normal(shape).astype(dtype)
            inputs.append(helper.make_tensor_value_info(own, helper.np_dtype_to_tensor_dtype(dtype), shape))
    kept = [constants[own] for own in dict.fromkeys(node.input) if own in constants]
    outputs = [helper.make_empty_tensor_value_info(out) for out in node.output if out]
    for value, original in zip(outputs, whole.node(name).outputs, strict=False):
        dtype = whole.tensors[original].dtype
        if dtype is None:
            return None
        value.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(dtype)
    body = helper.make_graph([node], "layer", inputs, outputs, kept)
    made = helper.make_model(body, opset_imports=model.opset_import, ir_version=model.ir_version)
    return made.SerializeToString(), feeds


def _time(
    measuring: measure.Measurer, model: bytes, feeds: Mapping[str, Any], timed: dict[str, float | None]
) -> float | None:
    """Median milliseconds of one run."""
    key = _digest(model, feeds)
    if key not in timed:
        try:
            _, service = measuring.serve(model, feeds, rate=None, seconds=SECONDS, queries=QUERIES)
            timed[key] = 1e3 * float(np.median(service))
        except measure.CandidateError:
            timed[key] = None
    return timed[key]


def _digest(model: bytes, feeds: Mapping[str, Any]) -> str:
    """What says how long a model of one node takes: operator, attributes and shapes, not names and values."""
    parsed = onnx.load_from_string(model)
    (node,) = parsed.graph.node
    shapes = {t.name: tuple(t.dims) for t in parsed.graph.initializer}
    shapes |= {name: array.shape for name, array in feeds.items()}
    attributes = sorted(a.SerializeToString() for a in node.attribute)
    said = (node.domain, node.op_type, attributes, [shapes.get(name) for name in node.input])
    return hashlib.sha256(repr(said).encode()).hexdigest()
