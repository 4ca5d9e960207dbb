"""What a training run leaves in its folder, and what it finds there again.

`log.jsonl` grows by rows, which `tensorboard/` has as curves; a checkpoint remembers its length, so that rows written
after the checkpoint from which a run is resumed are dropped instead of appearing twice.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onnxnas.errors import RunError
from onnxnas.supernet import SuperNetwork
from onnxnas.train import checkpoint
from onnxnas.train.curves import Curves
from onnxnas.train.optimizer import MovingAverage

Event = Callable[[Mapping[str, Any]], None]
_WORDS = {"model_sha256": "model", "space": "search space", "data": "data set"}


@dataclass(frozen=True)
class TrainResult:
    """What a training run was: `evaluation` is the last one, quality by name ('max', 'min', 'random_0')."""

    steps: int
    epochs: float
    seconds: float
    images_per_second: float
    evaluation: Mapping[str, float | None]

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {**vars(self), "evaluation": dict(self.evaluation)}


@dataclass
class Progress:
    """Where a run is; all of it is in the checkpoint. `elapsed` seconds include evaluations."""

    step: int = 0
    elapsed: float = 0.0
    images: int = 0
    log_bytes: int = 0
    evaluated_at: int = -1
    evaluation: dict[str, float | None] = field(default_factory=dict)


class Record:
    """Rows and checkpoints of one run. `directory` None: rows go to `on_event` only.

    `identity` says what the run is of; a checkpoint of anything else is refused. Without `writes`, for all processes
    of a group but one, the checkpoint is read and nothing is written.
    """

    def __init__(
        self,
        directory: Path | None,
        identity: Mapping[str, Any],
        on_event: Event | None,
        *,
        writes: bool = True,
    ) -> None:
        self.directory, self.identity, self.on_event = directory, dict(identity), on_event
        self._out = directory if writes else None
        self._curves: Curves | None = None

    def row(self, at: Progress, row: Mapping[str, Any]) -> None:
        """Append a row to the log."""
        if self._out is not None:
            line = (json.dumps(row, allow_nan=False) + "\n").encode()
            with (self._out / "log.jsonl").open("ab") as file:
                file.write(line)
            at.log_bytes += len(line)
            if self._curves is None:
                self._curves = Curves(self._out / "log.jsonl")
            else:
                self._curves.row(row)
        if self.on_event is not None:
            self.on_event(row)

    def save(
        self,
        at: Progress,
        net: SuperNetwork,
        optimizer: torch.optim.Optimizer,
        average: MovingAverage | None,
    ) -> None:
        """Write a checkpoint."""
        if self._out is None:
            return
        tensors: dict[str, Tensor] = {f"weight.{n}": w.detach() for n, w in net.named_weights().items()}
        state, rest = checkpoint.pack_optimizer(optimizer)
        tensors.update(state)
        tensors["rng.torch"] = torch.get_rng_state()
        body: dict[str, Any] = {**self.identity, "progress": vars(at), "optimizer": rest}
        if average is not None:
            tensors.update({f"average.{name}": v for name, v in average.average.items()})
            body["average_steps"] = average.steps
        checkpoint.save_state(self._out, f"{at.step:08d}", tensors, body)

    def finish(self, at: Progress, net: SuperNetwork, result: TrainResult) -> None:
        """Write the final weights; the run will not be repeated."""
        if self._out is None:
            return
        if self._curves is not None:
            self._curves.close()
        checkpoint.save_weights(self._out, net.weights())
        tensors = {f"weight.{n}": w.detach() for n, w in net.named_weights().items()}
        body = {**self.identity, "progress": vars(at), "result": result.to_json()}
        checkpoint.save_state(self._out, "done", tensors, body)

    def resume(
        self, net: SuperNetwork, optimizer: torch.optim.Optimizer, average: MovingAverage | None
    ) -> Progress | TrainResult:
        """Load the checkpoint, if there is one: where the run is, or its result when it is finished.

        Raises RunError when the checkpoint is damaged or of another model, data set, seed or settings.
        """
        if self.directory is None:
            return Progress()
        self.directory.mkdir(parents=True, exist_ok=True)
        found = checkpoint.load_state(self.directory)
        log = self.directory / "log.jsonl"
        if found is None:
            if self._out is not None:
                log.write_bytes(b"")
            return Progress()
        tensors, body = found
        self._compare(body)
        net.load({k.removeprefix("weight."): v for k, v in tensors.items() if k.startswith("weight.")})
        at = Progress(**body["progress"])
        if log.exists() and self._out is not None:
            os.truncate(log, min(at.log_bytes, log.stat().st_size))
        if "result" in body:
            return TrainResult(**body["result"])
        checkpoint.unpack_optimizer(optimizer, tensors, body["optimizer"])
        torch.set_rng_state(tensors["rng.torch"])
        if average is not None:
            for name, value in average.average.items():
                value.copy_(tensors[f"average.{name}"])
            average.steps = body["average_steps"]
        return at

    def _compare(self, body: Mapping[str, Any]) -> None:
        for key, value in self.identity.items():
            if body.get(key) != value:
                raise RunError(
                    f"{checkpoint.STATE} in {self.directory}: the checkpoint was made with another "
                    f"{_WORDS.get(key, key)}; use a new run directory"
                )


def finite(value: float) -> float | None:
    """The number, or None for what JSON cannot say."""
    return value if math.isfinite(value) else None
