"""The rows of a training log as TensorBoard scalars, in the folder `tensorboard` beside the log.

train/loss  train/lr  train/images_per_second     by step
quality/max  quality/min  quality/random_0 ...    by step
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

_SCALARS = ("loss", "lr", "images_per_second")


class Curves:
    """Written anew from the log that is there, so that what a resumed run repeats does not appear twice."""

    def __init__(self, log: Path) -> None:
        place = log.parent / "tensorboard"
        if place.is_dir():
            shutil.rmtree(place)
        self._writer = SummaryWriter(str(place), flush_secs=20)
        for line in log.read_text(encoding="utf-8").splitlines() if log.is_file() else ():
            self.row(json.loads(line))

    def row(self, row: Mapping[str, Any]) -> None:
        """One row of the log."""
        scalars = {f"train/{name}": row[name] for name in _SCALARS if row.get(name) is not None}
        judged: Mapping[str, float | None] = row.get("eval", {})
        scalars |= {f"quality/{name}": value for name, value in judged.items() if value is not None}
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, row["step"])

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
