"""What is known of a candidate before it is measured, for search on predictors.

Costs are counted exactly. Latency is known but for a line from a table of layers (`layer_table`), which is made once,
before the search, and kept in RUN/layers.json: all processes of a search propose the same candidates by it. Layers are
timed in floats; in 8 bits a candidate is taken to gain what the original gains. Quality is known but for a line from a
glance at a few images (`glances`), which costs more than a table and far less than judging.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from onnxnas.pipeline import build, files
from onnxnas.pipeline.layer_table import Known, LayerTable
from onnxnas.pipeline.objectives import MEASURED, OBJECTIVES
from onnxnas.pipeline.rounding import Rounder
from onnxnas.precision import EVERY, FLOATS, INT8
from onnxnas.search import LOOKS, PREDICTING, Hint
from onnxnas.types import Subnet

if TYPE_CHECKING:
    from onnxnas.measure import Measurer
    from onnxnas.pipeline.line import Line
    from onnxnas.space import SearchSpace

TIMED = MEASURED - {"memory"}
SECONDS = 60.0  # for timing layers; a tenth of the search when that is less
SHARE = 0.1


def prepare(line: Line, measuring: Measurer, seconds: float | None) -> None:
    """Make the table of layers where this search has use for it and it is not there; `seconds` are the search's."""
    place = line.run / "layers.json"
    if line.config.search.algorithm not in PREDICTING or not TIMED.intersection(line.config.objectives):
        return
    if not line.config.search.time_layers or place.is_file():
        return
    most = SECONDS if seconds is None else min(SECONDS, SHARE * seconds)
    table = LayerTable.timed(line.space, measuring, seconds=most, seed=line.config.seed)
    files.write_json(place, {"schema": 1, "ms": table.known, "ratios": _ratios(line, measuring)})
    count = sum(len(shapes) for shapes in table.known.values())
    line.say(f"search: timed {count} forms of {len(table.known)} layers")


def _ratios(line: Line, measuring: Measurer) -> dict[str, float]:
    """By precision, other than that of the original: its latency relative to that, measured once."""
    found: dict[str, float] = {}
    for kind in line.config.precision:
        if kind != FLOATS:
            rounder = Rounder(measuring, line.data, line.config.seed)
            made = rounder.rounded(build.fold(line.original.parts), {EVERY: kind})
            outcome = measuring.settled(made.to_bytes())
            if outcome.speedup is not None:
                found[kind] = 1.0 / outcome.speedup.value
    return found


def hints(line: Line) -> Mapping[str, Hint]:
    """By objective; those of latency only where `prepare` has made the table."""
    place = line.run / "layers.json"
    body = files.read_json(place) if place.is_file() else {}
    found = dict(told(line.space, body.get("ms"), body.get("ratios")))
    if glances(line):
        found["quality"] = Hint(lambda subnet: -line.glances.loss(subnet.structure), costly=True)
    return found


def glances(line: Line) -> bool:
    """Whether candidates of this search are glanced at before they are judged."""
    search = line.config.search
    return search.glance_images > 0 and search.algorithm in PREDICTING


def seconds_of_glances(line: Line, subnet: Subnet) -> float:
    """What glancing takes for each candidate that is judged, timed at this sub-network."""
    if not glances(line):
        return 0.0
    line.glances.loss(Subnet())  # loads what has to be loaded
    began = time.perf_counter()
    line.glances.loss(subnet)
    return LOOKS * (time.perf_counter() - began)


def told(
    space: SearchSpace, known: Known | None, ratios: Mapping[str, float] | None = None
) -> Mapping[str, Hint]:
    """What the space tells by itself, and with a table of layers; `ratios` are of latency, by precision."""

    def share(subnet: Subnet, shares: Mapping[str, float] | None) -> float:
        return (shares or {}).get(subnet.precision.get(EVERY, FLOATS), 1.0)

    found = {
        "macs": Hint(lambda subnet: float(space.cost(subnet).macs), exact=True),
        "params": Hint(lambda subnet: float(space.cost(subnet).params), exact=True),
        "bytes": Hint(lambda subnet: float(space.cost(subnet).params) * share(subnet, {INT8: 0.25})),
    }
    if known is not None:
        table = LayerTable(space, known)

        def ms(subnet: Subnet) -> float:
            return table.ms(subnet) * share(subnet, ratios)

        rate = Hint(lambda subnet: 1.0 / max(ms(subnet), 1e-9))
        timed = (OBJECTIVES[name] for name in TIMED)
        found |= {o.name: rate if o.maximise else Hint(ms) for o in timed}
    return found
