"""Glances at candidates, kept in RUN/glances.jsonl: a resumed search, or another process, need not repeat them."""

from __future__ import annotations

import json
import math
from functools import cached_property
from typing import TYPE_CHECKING

from onnxnas import train

if TYPE_CHECKING:
    from onnxnas.pipeline.line import Line
    from onnxnas.types import Subnet

SHARE = 8  # a glance sees at most one of so many validation samples that a candidate is judged by
FEWEST = 8


class Glances:
    """`train.Glance` of one run, every sub-network once."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._path = line.run / "glances.jsonl"
        self._known: dict[str, float] = {}
        if self._path.is_file():
            for text in self._path.read_text(encoding="utf-8").splitlines():
                self._read(text)

    def loss(self, subnet: Subnet) -> float:
        """How far its outputs are from the original's; nan when they are no numbers."""
        key = subnet.key()
        if key not in self._known:
            loss = self._glance.loss(subnet)
            self._known[key] = loss if math.isfinite(loss) else math.nan
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(
                    json.dumps({"subnet": key, "loss": loss if math.isfinite(loss) else None}) + "\n"
                )
        return self._known[key]

    @cached_property
    def _glance(self) -> train.Glance:
        line, search = self._line, self._line.config.search
        judged = min(search.val_limit, line.data.val.n)
        images = min(search.glance_images, max(FEWEST, judged // SHARE))
        return train.Glance(line.network, line.data, line.config.train, images)

    def _read(self, text: str) -> None:
        """One line of the file; one that a killed process left half written counts as none."""
        try:
            body = json.loads(text)
            self._known[body["subnet"]] = math.nan if body["loss"] is None else float(body["loss"])
        except (ValueError, KeyError, TypeError):
            return
