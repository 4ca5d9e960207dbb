"""`onnxnas bench`: one model, or two in turns, as the target will run them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from onnxnas import graph, measure
from onnxnas.pipeline.check import as_it_came

if TYPE_CHECKING:
    from numpy.typing import NDArray

Scenario = Literal["single-stream", "offline", "server"]
SCENARIOS: tuple[Scenario, ...] = ("single-stream", "offline", "server")


def bench(
    model: Path,
    *,
    against: Path | None = None,
    scenario: Scenario = "single-stream",
    runtime: str = "onnxruntime",
    threads: int = 1,
    batch: int = 1,
    bound_ms: float | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """`measure.bench` of files, on inputs drawn for the first one. Raises ModelError, ConfigError."""
    loaded = graph.load(model, shapes=shapes, quantised=True)
    other = None
    if against is not None:
        other = as_it_came(against, graph.load(against, shapes=shapes, quantised=True))

    def feeds(samples: int) -> Mapping[str, NDArray[Any]]:
        return graph.example_inputs(loaded, seed=seed, batch=samples, shapes=shapes)

    return measure.bench(
        as_it_came(model, loaded),
        feeds,
        against=other,
        scenario=scenario,
        target=measure.Target(runtime, threads, batch),
        bound_ms=bound_ms,
        seed=seed,
    )
