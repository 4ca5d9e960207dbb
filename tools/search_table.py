"""The figures of sub-networks of one run for one target, each measured once and kept in RUN/bench_search.jsonl."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from onnxnas import measure, search, train
from onnxnas.pipeline import build, hints
from onnxnas.pipeline.glances import Glances
from onnxnas.pipeline.layer_table import LayerTable
from onnxnas.pipeline.line import Line
from onnxnas.types import Subnet, Trial


class Table:
    """The figures of sub-networks for one target, each measured once and kept in a file.

    Latency is told as in a search: relative to the user's model, which is measured in turns with it. A `fresh` one
    knows nothing from before, keeps nothing, and also tells what loading a session takes (`seconds["load"]`). One that
    measures `again` has latencies of its own.
    """

    def __init__(
        self,
        line: Line,
        target: measure.Target,
        images: tuple[int, int],
        *,
        fresh: bool = False,
        again: bool = False,
    ) -> None:
        self.line, self._fresh, self._feeds = line, fresh, build.feeds(line.original, line.data, target.batch)
        self.latency = (
            f"latency_ms {target.runtime} {target.threads} {target.batch}{' again' if again else ''}"
        )
        val_limit, recalibration = images
        self.quality = f"quality {val_limit} {recalibration}"
        self._path = line.run / "bench_search.jsonl"
        self._known: dict[str, dict[str, float]] = {}
        self._read()
        config = line.config
        self._judge = train.Judge(
            line.network, line.data, "val", line.metric,
            recalibration_images=recalibration, limit=val_limit, seed=config.seed,
        )  # fmt: skip
        self._place = tempfile.TemporaryDirectory() if fresh else None
        self._glances = (
            Glances(Path(self._place.name) / "glances.jsonl", line.glance.loss)
            if self._place
            else line.glances
        )
        self._measurer = measure.Measurer(target, line.baseline, self._feeds, seed=config.seed)
        self.seconds = dict.fromkeys(
            ("statistics", "quality", "cut", "measure", "glance", "load", "think"), 0.0
        )
        self.measured = self.glanced = 0

    def __enter__(self) -> Table:
        self._measurer.__enter__()
        self._reference = self._known.get("", {}).get(self.latency, 0.0)
        if not self._reference:
            found = self._measurer.measure(self.line.baseline, protocol="short")
            if found.baseline_p50 is None:
                raise SystemExit(f"the baseline cannot be measured: {found.error}")
            self._reference = found.baseline_p50.value
            self._keep("", {self.latency: self._reference})
        return self

    def __exit__(self, *_: object) -> None:
        self._measurer.close()
        if self._place is not None:
            self._place.cleanup()

    def hints(self, *, glances: bool = True) -> Mapping[str, search.Hint]:
        """Costs, latency by layers that are timed on their own, once for each target, and glances at quality."""
        place = self.line.run / f"{self.latency.replace(' ', '_')}_layers.json"
        if not place.is_file():
            timed = LayerTable.timed(self.line.space, self._measurer, seconds=60.0)
            place.write_text(json.dumps(timed.known))
        found = dict(hints.told(self.line.space, json.loads(place.read_text())))
        if glances:
            found["quality"] = search.Hint(self._glanced, costly=True)
        return found

    def spent(self) -> str:
        """What has been done for this table, in words."""
        each = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in self.seconds.items())
        return f"{self.measured} measured, {self.glanced} glanced at ({each})"

    def _glanced(self, subnet: Subnet) -> float:
        with self.timed("glance"):
            self.glanced += 1
            return -self._glances.loss(subnet)

    def evaluate(self, subnet: Subnet) -> Trial:
        """A trial with quality, latency and multiply-accumulates."""
        key = subnet.key() + "#"
        row = self._known.get(key, {})
        if self.quality not in row or self.latency not in row:
            row = self._measured(key, subnet, row)
        values = {"quality": row[self.quality], "latency_ms": row[self.latency], "macs": row["macs"]}
        if not math.isfinite(values["latency_ms"]):
            return Trial(0, subnet, "invalid", {})
        return Trial(0, subnet, "ok", values)

    def _measured(self, key: str, subnet: Subnet, row: Mapping[str, float]) -> dict[str, float]:
        with self.timed("statistics"):
            statistics = self._judge.statistics(subnet)
        new = {"macs": float(self.line.space.cost(subnet).macs)}
        if self.quality not in row:
            with self.timed("quality"):
                new[self.quality] = self._judge.quality(subnet, statistics)
        with self.timed("cut"):
            model = build.cut(self.line.network, subnet, statistics).to_bytes()
        with self.timed("measure"):
            found = self._measurer.settled(model)
        if self._fresh:
            with self.timed("load"):
                self._measurer.run(model, self._feeds)
        self.measured += 1
        if found.speedup is None:
            new[self.latency] = float("nan")
        else:
            new[self.latency] = self._reference / found.speedup.value
        self._keep(key, new)
        return self._known[key]

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add what is done meanwhile to `seconds[name]`."""
        began = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - began

    def _read(self) -> None:
        if self._path.is_file() and not self._fresh:
            for text in self._path.read_text().splitlines():
                body = json.loads(text)
                self._known.setdefault(body["key"], {}).update(body["figures"])

    def _keep(self, key: str, figures: Mapping[str, float]) -> None:
        self._known.setdefault(key, {}).update(figures)
        if self._fresh:
            return
        with self._path.open("a") as stream:
            stream.write(json.dumps({"key": key, "figures": dict(figures)}) + "\n")
