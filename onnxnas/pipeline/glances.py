"""Glances at candidates, kept in RUN/glances.jsonl: a resumed search, or another process, need not repeat them.

Whoever writes a line first is right: all processes of a search propose the same candidates only when they have the same
figures, to the last bit, and two machines of a kind, or other numbers of threads, may not compute the same ones.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from onnxnas import train

if TYPE_CHECKING:
    from pathlib import Path

    from onnxnas.data import DataSet
    from onnxnas.pipeline.config import Config
    from onnxnas.supernet import SuperNetwork
    from onnxnas.types import Subnet

SHARE = 8  # a glance sees at most one of so many validation samples that a candidate is judged by
FEWEST = 8


def glance(network: SuperNetwork, dataset: DataSet, config: Config) -> train.Glance:
    """What looks at the candidates of a run."""
    judged = min(config.search.val_limit, dataset.val.n)
    images = min(config.search.glance_images, max(FEWEST, judged // SHARE))
    return train.Glance(network, dataset, config.train, images)


class Glances:
    """What `look` says of sub-networks, each asked about once; kept in the file at `path`."""

    def __init__(self, path: Path, look: Callable[[Subnet], float]) -> None:
        self._path, self._look = path, look
        self._known: dict[str, float] = {}
        self._read = 0  # bytes of the file
        self._learn()

    def loss(self, subnet: Subnet) -> float:
        """How far its outputs are from the original's; nan when they are no numbers."""
        key = subnet.key()
        if key not in self._known:
            self._learn()
        if key not in self._known:
            loss = self._look(subnet)
            said = {"subnet": key, "loss": loss if math.isfinite(loss) else None}
            with self._path.open("ab") as stream:
                # a line that a killed process left half written ends here
                stream.write(f"{'' if self._whole() else chr(10)}{json.dumps(said)}\n".encode())
            self._learn()
        return self._known[key]

    def _learn(self) -> None:
        """Read the lines that are new, in whole."""
        if not self._path.is_file():
            return
        with self._path.open("rb") as stream:
            stream.seek(self._read)
            content = stream.read()
        content = content[: content.rfind(b"\n") + 1]
        self._read += len(content)
        for text in content.splitlines():
            try:
                body = json.loads(text)
                loss = math.nan if body["loss"] is None else float(body["loss"])
                self._known.setdefault(body["subnet"], loss)
            except (ValueError, KeyError, TypeError):
                continue

    def _whole(self) -> bool:
        """Whether the file ends with a whole line."""
        return not self._path.is_file() or self._path.stat().st_size == self._read
