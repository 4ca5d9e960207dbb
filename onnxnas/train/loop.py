"""The training loop.

Everything random in it is a function of (seed, epoch) or (seed, step): a run that was killed and resumed from
its last checkpoint does exactly what it would have done, to the last bit on a CPU with the same number of
threads (unless `max_seconds` puts the schedule on the clock).

In the run's `supernet` folder: `state.json` and its tensors (checkpoint), `weights.safetensors` (at the end),
`log.jsonl` with rows {"epoch", "step", "seconds", "lr", "loss", "images_per_second"} and
{"epoch", "step", "eval": {"max": quality, "min": quality, "random_0": ...}}.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from onnxnas.data import DataSet
from onnxnas.data.metrics import Metric, get_metric
from onnxnas.data.torch_batches import TorchBatches
from onnxnas.errors import CheckFailed, DataError, Interrupted, RunError
from onnxnas.supernet import SuperNetwork
from onnxnas.train import checkpoint
from onnxnas.train.evaluate import Judge, original
from onnxnas.train.losses import Criterion, detached
from onnxnas.train.optimizer import MovingAverage, learning_rate, make_optimizer
from onnxnas.train.settings import TrainSettings
from onnxnas.train.strategies import Sampler, first_is_maximal, get_strategy
from onnxnas.types import Subnet

Event = Callable[[Mapping[str, Any]], None]
_PATIENCE = 20
_STEP_STREAM, _EVAL_STREAM = 1, 2


@dataclass(frozen=True)
class TrainResult:
    """What a training run was: `evaluation` is the last one, quality by name ('max', 'min', 'random_0')."""

    steps: int
    epochs: float
    seconds: float
    images_per_second: float
    evaluation: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {
            "steps": self.steps,
            "epochs": self.epochs,
            "seconds": self.seconds,
            "images_per_second": self.images_per_second,
            "evaluation": dict(self.evaluation),
        }


@dataclass
class _Progress:
    """Where a run is; all of it is in the checkpoint."""

    step: int = 0
    elapsed: float = 0.0
    images: int = 0
    log_bytes: int = 0
    evaluated_at: int = -1
    evaluation: dict[str, float] = field(default_factory=dict)


def bf16_helps(device: torch.device) -> bool:
    """Whether the processor multiplies bfloat16 in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def train(
    net: SuperNetwork,
    data: DataSet,
    settings: TrainSettings,
    *,
    directory: Path | None,
    teacher: SuperNetwork | None = None,
    seed: int = 0,
    metric: Metric | None = None,
    on_event: Event | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> TrainResult:
    """Train the super-network in place; continue where the checkpoint in `directory` is, if there is one.

    `teacher` is a frozen network with the same outputs; None: the network as it is in the file. With
    `directory` None nothing is written. `should_stop` is asked after each step.

    Raises:
        RunError: the checkpoint is damaged or belongs to another model, data set, seed or settings.
        Interrupted: `should_stop` said so; a checkpoint has been written.
        CheckFailed: the loss was not a number for 20 steps on end.
        ConfigError: unknown strategy, loss or optimizer.
    """
    return _Run(net, data, settings, directory, teacher, seed, metric, on_event).run(should_stop)


class _Run:
    def __init__(
        self,
        net: SuperNetwork,
        data: DataSet,
        settings: TrainSettings,
        directory: Path | None,
        teacher: SuperNetwork | None,
        seed: int,
        metric: Metric | None,
        on_event: Event | None,
    ) -> None:
        space: Sampler = net.space  # type: ignore[assignment]
        self.net, self.data, self.settings, self.seed = net, data, settings, seed
        self.directory, self.on_event, self.space = directory, on_event, space
        self.strategy = get_strategy(settings.strategy, space, settings.random_subnets)
        self.criterion = Criterion(
            space.graph, data, settings.loss, settings.distillation, settings.temperature, True
        )
        self.optimizer = make_optimizer(net, settings)
        self.weights = net.named_weights()
        self.average = None if settings.ema is None else MovingAverage(self.weights, settings.ema)
        self.batches = TorchBatches(data.train, data, device=net.device, channels_last=net.channels_last)
        self.whole = data.train.n >= settings.batch_size
        self.per_epoch = self.batches.count(settings.batch_size, drop_last=self.whole)
        if self.per_epoch < 1:
            raise DataError("the training split is empty")
        self.total = max(1, math.ceil(settings.epochs * self.per_epoch))
        self.teacher = teacher
        if teacher is None and self.criterion.needs_teacher:
            self.teacher = original(net)
        self.metric = metric or get_metric(data.metric)
        self.judge: Judge | None = None
        self.at = _Progress()
        self.bad = 0

    # ---- the run ----

    def run(self, should_stop: Callable[[], bool] | None) -> TrainResult:
        settings, net = self.settings, self.net
        done = self._resume()
        if done is not None:
            return done
        net.bf16 = bf16_helps(net.device) if settings.bf16 == "auto" else settings.bf16
        if self.teacher is not None:
            self.teacher.bf16 = net.bf16
        was = torch.are_deterministic_algorithms_enabled()
        if settings.deterministic:
            torch.use_deterministic_algorithms(True)
        try:
            self._steps(should_stop)
        finally:
            torch.use_deterministic_algorithms(was)
            net.bf16 = False
            net.activate(self.space.maximal())
        return self._finish()

    def _steps(self, should_stop: Callable[[], bool] | None) -> None:
        at, settings = self.at, self.settings
        self.start = time.monotonic() - at.elapsed
        saved = logged = time.monotonic()
        self.recent = (at.step, at.elapsed, 0.0)
        self.net.train()
        self._evaluate_if_due()
        while not self._over():
            epoch, first = divmod(at.step, self.per_epoch)
            for x, y in self.batches.epoch(
                settings.batch_size,
                seed=self.seed,
                epoch=epoch,
                start=first,
                augment=settings.augment,
                drop_last=self.whole,
            ):
                loss = self._step(x, y)
                at.step += 1
                at.elapsed = time.monotonic() - self.start
                at.images += int(next(iter(x.values())).shape[0])
                logged = self._log_if_due(loss, logged)
                self._evaluate_if_due()
                if should_stop is not None and should_stop():
                    self._save()
                    raise Interrupted(f"training stopped at step {at.step}; resume continues there")
                if time.monotonic() - saved >= settings.checkpoint_seconds:
                    self._save()
                    saved = time.monotonic()
                if self._over():
                    break

    def progress(self) -> float:
        """From 0 to 1: by steps, or by the clock when that is ahead."""
        by_steps = self.at.step / self.total
        limit = self.settings.max_seconds
        return min(1.0, by_steps if limit is None else max(by_steps, self.at.elapsed / limit))

    def _over(self) -> bool:
        return self.progress() >= 1.0

    def _step(self, x: dict[str, Tensor], y: Tensor | None) -> float:
        settings, net, progress = self.settings, self.net, self.progress()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(progress, settings)
        taught = None
        if self.teacher is not None and self.criterion.needs_teacher:
            with torch.no_grad():
                taught = self.teacher(x)
        rng = np.random.default_rng([self.seed, _STEP_STREAM, self.at.step])
        picks = self.strategy.subnets(progress, rng)
        self.optimizer.zero_grad(set_to_none=True)
        in_place = settings.in_place and first_is_maximal(picks)
        total = 0.0
        for index, (subnet, _) in enumerate(picks):
            net.activate(subnet)
            outputs = net(x)
            loss = self.criterion(outputs, y, taught)
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
            if in_place and index == 0:
                taught = detached(outputs)
        if not math.isfinite(total):
            self.bad += 1
            if self.bad >= _PATIENCE:
                raise CheckFailed(
                    f"training diverged: the loss was not a number for {_PATIENCE} steps up to step "
                    f"{self.at.step}; use a lower learning rate than {settings.lr}"
                )
            return total
        self.bad = 0
        if settings.grad_clip is not None:
            torch.nn.utils.clip_grad_norm_(self.weights.values(), settings.grad_clip)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.weights)
        return total / len(picks)

    # ---- what is said on the way ----

    def _log_if_due(self, loss: float, logged: float) -> float:
        at, now = self.at, time.monotonic()
        if at.step % self.settings.log_steps and at.step != 1 and not self._over():
            return logged
        step, elapsed, _ = self.recent
        images = (at.step - step) * min(self.settings.batch_size, self.data.train.n)
        self._write(
            {
                "epoch": round(at.step / self.per_epoch, 4),
                "step": at.step,
                "seconds": round(at.elapsed, 3),
                "lr": self.optimizer.param_groups[0]["lr"],
                "loss": loss if math.isfinite(loss) else None,
                "images_per_second": round(images / max(at.elapsed - elapsed, 1e-9), 1),
            }
        )
        self.recent = (at.step, at.elapsed, now)
        return now

    def _evaluate_if_due(self) -> None:
        at, every = self.at, self.settings.eval_every
        if every <= 0 or at.evaluated_at == at.step:
            return
        if at.step % max(1, round(every * self.per_epoch)) and not self._over():
            return
        self._evaluate()

    def _evaluate(self) -> None:
        at, settings = self.at, self.settings
        if self.judge is None:
            self.judge = Judge(
                self.net,
                self.data,
                "val",
                self.metric,
                recalibration_images=settings.recalibration_images,
                limit=settings.eval_images,
                seed=self.seed,
                teacher=self.teacher,
            )
        names: dict[str, Subnet] = {"max": self.space.maximal()}
        if settings.strategy != "fixed":
            names["min"] = self.space.minimal()
        for i in range(settings.eval_random):
            rng = np.random.default_rng([self.seed, _EVAL_STREAM, i])
            names[f"random_{i}"] = self.space.random(rng)
        kept = self._swap_average()
        at.evaluation = {name: self.judge.quality(subnet) for name, subnet in names.items()}
        if kept is not None:
            self.net.load(kept)
        at.evaluated_at = at.step
        at.elapsed = time.monotonic() - self.start
        row = {"epoch": round(at.step / self.per_epoch, 4), "step": at.step}
        self._write({**row, "seconds": round(at.elapsed, 3), "eval": dict(at.evaluation)})
        self.recent = (at.step, at.elapsed, 0.0)

    def _swap_average(self) -> dict[str, Tensor] | None:
        """Load the averaged weights, giving back the present ones; None when no average is kept."""
        if self.average is None or self.average.steps == 0:
            return None
        kept = {name: w.detach().clone() for name, w in self.weights.items()}
        self.net.load(self.average.average)
        return kept

    def _write(self, row: dict[str, Any]) -> None:
        if self.directory is not None:
            line = (json.dumps(row) + "\n").encode()
            with (self.directory / "log.jsonl").open("ab") as file:
                file.write(line)
            self.at.log_bytes += len(line)
        if self.on_event is not None:
            self.on_event(row)

    # ---- checkpoints ----

    def _identity(self) -> dict[str, Any]:
        return {
            "model_sha256": self.space.graph.digest,
            "space": getattr(self.space, "digest", None),
            "data": self.data.digest,
            "seed": self.seed,
            "settings": self.settings.model_dump(mode="json"),
        }

    def _save(self) -> None:
        if self.directory is None:
            return
        tensors = {f"weight.{name}": w.detach() for name, w in self.weights.items()}
        optimizer, rest = checkpoint.pack_optimizer(self.optimizer)
        tensors.update(optimizer)
        tensors["rng.torch"] = torch.get_rng_state()
        body: dict[str, Any] = {**self._identity(), "progress": vars(self.at), "optimizer": rest}
        if self.average is not None:
            tensors.update({f"average.{name}": v for name, v in self.average.average.items()})
            body["average_steps"] = self.average.steps
        checkpoint.save_state(self.directory, f"{self.at.step:08d}", tensors, body)

    def _resume(self) -> TrainResult | None:
        if self.directory is None:
            return None
        self.directory.mkdir(parents=True, exist_ok=True)
        found = checkpoint.load_state(self.directory)
        log = self.directory / "log.jsonl"
        if found is None:
            log.write_bytes(b"")
            return None
        tensors, body = found
        for key, value in self._identity().items():
            if body.get(key) != value:
                what = {"model_sha256": "model", "space": "search space", "data": "data set"}.get(key, key)
                raise RunError(
                    f"{self.directory / checkpoint.STATE}: the checkpoint was made with another {what}; "
                    "use a new run directory"
                )
        weights = {k.removeprefix("weight."): v for k, v in tensors.items() if k.startswith("weight.")}
        self.net.load(weights)
        self.at = _Progress(**body["progress"])
        if log.exists():
            os.truncate(log, min(self.at.log_bytes, log.stat().st_size))
        if "result" in body:
            return TrainResult(**body["result"])
        checkpoint.unpack_optimizer(self.optimizer, tensors, body["optimizer"])
        torch.set_rng_state(tensors["rng.torch"])
        if self.average is not None:
            for name, value in self.average.average.items():
                value.copy_(tensors[f"average.{name}"])
            self.average.steps = body["average_steps"]
        return None

    def _finish(self) -> TrainResult:
        self._swap_average()
        at = self.at
        result = TrainResult(
            at.step,
            round(at.step / self.per_epoch, 4),
            round(at.elapsed, 3),
            round(at.images / max(at.elapsed, 1e-9), 1),
            dict(at.evaluation),
        )
        if self.directory is not None:
            checkpoint.save_weights(self.directory, self.net.weights())
            tensors = {f"weight.{name}": w.detach() for name, w in self.weights.items()}
            body = {**self._identity(), "progress": vars(at), "result": result.to_json()}
            checkpoint.save_state(self.directory, "done", tensors, body)
        return result
