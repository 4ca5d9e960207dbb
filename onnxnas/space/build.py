"""From an analysis to a search space."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxnas.analysis import Analysis, analyse
from onnxnas.errors import ConfigError, RunError
from onnxnas.graph import Graph
from onnxnas.space.importance import order_by
from onnxnas.space.space import ELASTIC, SearchSpace

SCHEMA = 1
Order = str | Mapping[str, NDArray[np.int64]]


def build(
    analysis: Analysis,
    *,
    elastic: Collection[str] = ELASTIC,
    order: Order = "l1",
) -> SearchSpace:
    """The space of all sub-networks that `elastic` allows.

    `order` says which units of a group stay first: 'l1', 'l2', 'none' (as they stand), or for each group
    id the places in `WidthGroup.units`, most important first. Raises ConfigError on an unknown kind.
    """
    unknown = sorted(set(elastic) - set(ELASTIC))
    if unknown:
        raise ConfigError(f"elastic: got '{unknown[0]}', expected some of {', '.join(ELASTIC)}")
    groups = analysis.groups if "width" in elastic else ()
    return SearchSpace(
        graph=analysis.graph,
        labels=analysis.labels,
        blocks=analysis.blocks if "depth" in elastic else (),
        groups=groups,
        kernels=analysis.kernels if "kernel" in elastic else (),
        order=order_by(analysis, groups, order) if isinstance(order, str) else dict(order),
        frozen=analysis.frozen,
        elastic=tuple(e for e in ELASTIC if e in elastic),
    )


def from_json(graph: Graph, body: Mapping[str, Any]) -> SearchSpace:
    """The space that `SearchSpace.to_json` wrote for this graph.

    Raises RunError when the graph is another one: its blocks, groups or kernels differ from the file's.
    """
    if body.get("schema") != SCHEMA:
        raise RunError(f"space.json: got schema {body.get('schema')!r}, expected {SCHEMA}; make the run anew")
    order = {g["id"]: np.asarray(g["order"], np.int64) for g in body["groups"]}
    analysis = analyse(graph, smallest_kernel=int(body.get("smallest_kernel", 3)))
    space = build(analysis, elastic=body["elastic"], order=order)
    for key in ("blocks", "groups", "kernels"):
        expected, got = [x["id"] for x in body[key]], [x["id"] for x in space.to_json()[key]]
        sizes = [x["size"] for x in body[key]] if key == "groups" else []
        if expected != got or sizes != [g.size for g in space.groups][: len(sizes)]:
            raise RunError(
                f"space.json: its {key} are not those of the model beside it; was a file replaced?"
            )
    return space
