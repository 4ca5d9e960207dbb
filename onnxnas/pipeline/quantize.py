"""`onnxnas quantize`: a model in 8 bits, its structure as it is.

    int8     all layers that can have it
    mixed    all but those that cost too much quality, fewest first

For `mixed` every layer is rounded alone, and the outputs of the network tell how much that changes; then so many of
the most sensitive ones stay in floats that the quality is within the drop, found by halving the interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from onnxnas import data, graph, measure, precision
from onnxnas.errors import CheckFailed
from onnxnas.pipeline import any_batch, build
from onnxnas.pipeline.check import as_it_came, same_function
from onnxnas.pipeline.rounding import Rounder

if TYPE_CHECKING:
    import rewriters
    from onnxnas.data import DataSet

Kind = Literal["int8", "mixed"]
KINDS: tuple[Kind, ...] = ("int8", "mixed")
_SENSED = 64  # samples that tell how sensitive a layer is


def quantize(
    model: Path,
    source: str,
    output: Path,
    *,
    kind: Kind = "int8",
    max_drop: float = 1.0,
    target: measure.Target | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Write `output` and return what it is and what it costs and gains, the document of `--json`.

    `source` is the data: ranges are counted on training samples, `mixed` is decided on validation samples, quality
    is told of test samples where there are any. `max_drop` is in the metric's unit.

    Raises ModelError, DataError, ConfigError; CheckFailed when no layer can be rounded within the drop.
    """
    target = target or measure.Target()
    loaded = graph.load(model, shapes=shapes, least_opset=precision.LEAST_OPSET)
    content = as_it_came(model, loaded)
    content = content if isinstance(content, bytes) else content.read_bytes()
    loaded, content, notes = any_batch.free(loaded, content, str(model), shapes or {}, precision.LEAST_OPSET)
    dataset = data.load(
        source,
        [loaded.tensors[name] for name in loaded.inputs],
        outputs=[loaded.tensors[name] for name in loaded.outputs],
        seed=seed,
    )
    metric = data.metric_of(dataset)
    split = "test" if dataset.test is not None else "val"
    parts = build.fold(loaded.parts)
    feeds = build.feeds(loaded, dataset, target.batch)
    same_function(parts.to_bytes(), content, feeds, str(model))
    with measure.Measurer(target, content, feeds, seed=seed) as measuring:
        judge = build.InRuntime(measuring, content, dataset, "val", metric)
        rounder = Rounder(measuring, dataset, seed)
        floats = _Floats(parts, measuring, dataset, seed)
        if kind == "mixed":
            wanted = _mixed(floats, rounder, judge, judge.quality(content) - max_drop)
        else:
            wanted = {precision.EVERY: precision.INT8}
        made = rounder.rounded(parts, wanted)
        rounded = made.to_bytes()
        told = judge if split == "val" else build.InRuntime(measuring, content, dataset, split, metric)
        found = measuring.settled(rounded, protocol="long")
        if found.status != "ok":
            raise CheckFailed(f"{model}: in 8 bits it does not run in {target.runtime}: {found.error}")
        qualities = told.quality(content), told.quality(rounded)
        said = [*notes, *dataset.notes, *rounder.notes]
    graph.save(made.proto(), output)
    assert found.p50 is not None
    assert found.baseline_p50 is not None
    assert found.speedup is not None
    return {
        "schema": 1,
        "path": str(output),
        "precision": wanted,
        "layers": {"int8": len(floats.layers) - (len(wanted) - 1), "of": len(floats.layers)},
        "metric": {"name": metric.name, "unit": metric.unit},
        "quality_split": split,
        "baseline": {
            "quality": qualities[0],
            "latency_ms": found.baseline_p50.to_json(),
            "bytes": len(content),
        },
        "model": {
            "quality": qualities[1],
            "latency_ms": found.p50.to_json(),
            "bytes": len(rounded),
        },
        "speedup": found.speedup.to_json(),
        "notes": said,
    }


class _Floats:
    """The network in floats, and how sensitive its layers are."""

    def __init__(
        self, parts: rewriters.Parts, measuring: measure.Measurer, dataset: DataSet, seed: int
    ) -> None:
        self.parts = parts
        self._measuring = measuring
        self._rounder = Rounder(measuring, dataset, seed, _SENSED)
        self.layers = precision.Quantisable(parts, {precision.EVERY: precision.INT8}).nodes

    def sensitive(self) -> list[str]:
        """The layers, those first whose rounding alone changes the outputs most."""
        exact = self._outputs(self.parts)
        changes = {}
        for layer in self.layers:
            rounded = self._outputs(self._rounder.rounded(self.parts, {layer: precision.INT8}))
            changes[layer] = sum(
                float(np.square(a - b).sum() / max(float(np.square(b).sum()), 1e-30))
                for a, b in zip(rounded, exact, strict=True)
            )
        return sorted(self.layers, key=lambda layer: -changes[layer])

    def _outputs(self, parts: rewriters.Parts) -> list[Any]:
        content = parts.to_bytes()
        batches = [self._measuring.run(content, x) for x in self._rounder.samples()]
        return [np.concatenate(one).astype(np.float64) for one in zip(*batches, strict=True)]


def _mixed(floats: _Floats, rounder: Rounder, judge: build.InRuntime, least: float) -> dict[str, str]:
    """The precision that leaves the fewest of the most sensitive layers in floats. Raises CheckFailed."""
    layers = floats.sensitive()

    def wanted(kept: int) -> dict[str, str]:
        return {precision.EVERY: precision.INT8, **dict.fromkeys(layers[:kept], precision.FLOATS)}

    def enough(kept: int) -> bool:
        return judge.quality(rounder.rounded(floats.parts, wanted(kept)).to_bytes()) >= least

    if enough(0):
        return wanted(0)
    low, high = 0, len(layers) - 1  # with `low` in floats it is not enough
    if high == 0 or not enough(high):
        raise CheckFailed(f"no layer can be rounded to 8 bits with a quality of at least {least:.4g}")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return wanted(high)
