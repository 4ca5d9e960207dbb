"""The training loop.

Everything random in it is a function of (seed, epoch) or (seed, step): a run that was killed and resumed from
its last checkpoint does exactly what it would have done, to the last bit on a CPU with the same number of
threads (unless `max_seconds` puts the schedule on the clock).

In the run's `supernet` folder: `state.json` and its tensors (checkpoint), `weights.safetensors` (at the end),
`log.jsonl` with rows {"epoch", "step", "seconds", "lr", "loss", "images_per_second"} and
{"epoch", "step", "seconds", "eval": {"max": quality, "min": quality, "random_0": ...}}.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from onnxnas.data import DataSet, Metric, metric_of
from onnxnas.data.torch_batches import TorchBatches, part_of
from onnxnas.errors import CheckFailed, DataError, Interrupted
from onnxnas.space import SearchSpace
from onnxnas.supernet import SuperNetwork
from onnxnas.train.evaluate import Judge, original
from onnxnas.train.group import Group
from onnxnas.train.lessons import Lessons
from onnxnas.train.losses import Outputs, criterion, detached
from onnxnas.train.optimizer import MovingAverage, learning_rate, make_optimizer, settled
from onnxnas.train.pictures import check_pictures
from onnxnas.train.precision import in_bf16
from onnxnas.train.record import Event, Progress, Record, TrainResult, finite
from onnxnas.train.sampling import SizedSampler
from onnxnas.train.settings import TrainSettings
from onnxnas.train.strategies import Sampler, first_is_maximal, get_strategy
from onnxnas.train.teacher import Mirrored, Teacher
from onnxnas.types import Subnet

_PATIENCE = 20
_STEP_STREAM, _EVAL_STREAM = 1, 2


def train(
    net: SuperNetwork,
    data: DataSet,
    settings: TrainSettings,
    *,
    directory: Path | None,
    teacher: Teacher | None = None,
    lessons: Lessons | None = None,
    seed: int = 0,
    metric: Metric | None = None,
    on_event: Event | None = None,
    should_stop: Callable[[], bool] | None = None,
    group: Group | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> TrainResult:
    """Train the super-network in place; continue where the checkpoint in `directory` is, if there is one.

    `teacher` is a frozen network with the same outputs; None: the network as it is in the file. Where `lessons` have
    what it says of a batch, it is not asked. With `directory` None nothing is written. `on_event` gets every row of
    the log. `should_stop` is asked after each step. `clock` gives the seconds that are counted; a comparison may count
    those of the processor (`time.process_time`), which other work on the machine does not use up. In a `group`, all
    processes call this with the same network, data, settings, lessons and seed; what only process 0 does is said in
    `train.group`.

    Raises:
        RunError: the checkpoint is damaged or belongs to another model, data set, seed or settings.
        Interrupted: `should_stop` said so; a checkpoint has been written.
        CheckFailed: the loss was not a number for 20 steps on end.
        ConfigError: unknown strategy, loss or optimizer; pictures to be mixed where there are none or no teacher, or
            to be mirrored where that changes what is asked of them.
        DataError: the training split is empty.
        EnvironmentProblem: another process of the group is gone.
    """
    group = group or Group()
    settings = settled(settings, net.space.graph)
    run = _Run(net, data, settings, teacher, seed, metric, group, clock)
    run.lessons = lessons
    identity = {
        "model_sha256": net.space.graph.digest,
        "space": getattr(net.space, "digest", None),
        "data": data.digest,
        "seed": seed,
        "settings": settings.model_dump(mode="json"),
    }
    run.record = Record(directory, identity, on_event, writes=group.first)
    found = run.record.resume(net, run.optimizer, run.average)
    group.agree([0.0])  # nobody writes before all have read
    if isinstance(found, TrainResult):
        return found
    run.at = found
    return run.run(should_stop)


@dataclass
class _Part:
    """Some samples of a batch: inputs, labels, the teacher's outputs, and their share of the batch."""

    x: dict[str, Tensor]
    y: Tensor | None
    taught: Outputs | None
    share: float


class _Run:
    """One run; `record` and `at` are set before `run`."""

    record: Record
    lessons: Lessons | None = None

    def __init__(
        self,
        net: SuperNetwork,
        data: DataSet,
        settings: TrainSettings,
        teacher: Teacher | None,
        seed: int,
        metric: Metric | None,
        group: Group,
        clock: Callable[[], float],
    ) -> None:
        self.group, self.clock = group, clock
        space: Sampler = net.space  # type: ignore[assignment]
        self.net, self.data, self.settings, self.seed, self.space = net, data, settings, seed, space
        self.sampler: Sampler = space
        if settings.smallest > 0 and isinstance(space, SearchSpace):
            self.sampler = SizedSampler(space, settings.smallest)
        self.strategy = get_strategy(settings.strategy, self.sampler, settings.random_subnets)
        self.criterion = criterion(space.graph, data, settings)
        check_pictures(settings, data, space.graph, self.criterion)
        self.optimizer = make_optimizer(net, settings)
        self.weights = net.named_weights()
        self.average = None if settings.ema is None else MovingAverage(self.weights, settings.ema)
        self.batches = TorchBatches(data.train, data, device=net.device, channels_last=net.channels_last)
        self.whole = data.train.n >= settings.batch_size  # whole batches only, if there is one
        self.batch = min(data.train.n, settings.batch_size)
        self.per_epoch = self.batches.count(settings.batch_size, drop_last=self.whole)
        if self.per_epoch < 1:
            raise DataError("the training split is empty")
        self.total = max(1, math.ceil(settings.epochs * self.per_epoch))
        self.teacher = teacher
        if teacher is None and self.criterion.needs_teacher:
            self.teacher = original(net)
        self.metric = metric or metric_of(data)
        self.judge: Judge | None = None
        self.at = Progress()
        self.bad = 0

    def run(self, should_stop: Callable[[], bool] | None) -> TrainResult:
        settings, net = self.settings, self.net
        net.bf16 = in_bf16(settings, net.device)
        if self.teacher is not None:
            self.teacher.bf16 = net.bf16
        was = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(was or settings.deterministic)
        try:
            self._steps(should_stop)
        finally:
            torch.use_deterministic_algorithms(was)
            net.bf16 = False
            net.activate(self.space.maximal())
        self._average_in()
        at = self.at
        result = TrainResult(
            at.step,
            round(at.step / self.per_epoch, 4),
            round(at.elapsed, 3),
            round(at.images / max(at.elapsed, 1e-9), 1),
            dict(at.evaluation),
        )
        self.record.finish(at, net, result)
        return result

    def _place(self) -> tuple[int, int]:
        """The next batch: of which epoch's, and its number there."""
        epoch, index = divmod(self.at.step, self.per_epoch)
        return epoch % (self.settings.distinct_epochs or epoch + 1), index

    def progress(self) -> float:
        """From 0 to 1: by steps, or by the clock when that is ahead."""
        by_steps = self.at.step / self.total
        limit = self.settings.max_seconds
        return min(1.0, by_steps if limit is None else max(by_steps, self.at.elapsed / limit))

    def _over(self) -> bool:
        return self.progress() >= 1.0

    def _steps(self, should_stop: Callable[[], bool] | None) -> None:
        at, settings = self.at, self.settings
        self.start = self.clock() - at.elapsed
        self.recent = (at.images, at.elapsed)
        saved = at.elapsed
        self.net.train()
        self._after_step(None)
        while not self._over():
            epoch, first = self._place()
            for x, y in self.batches.epoch(
                settings.batch_size,
                seed=self.seed,
                epoch=epoch,
                start=first,
                augment=settings.augment,
                mixed=settings.mixed,
                mirrored=settings.mirrored,
                drop_last=self.whole,
                part=(self.group.size, self.group.rank),
            ):
                loss = self._step(x, y)
                at.step += 1
                at.images += self.batch
                stop = self._after_step(loss, should_stop)
                if stop or at.elapsed - saved >= settings.checkpoint_seconds:
                    self.record.save(at, self.net, self.optimizer, self.average)
                    saved = at.elapsed
                if stop:
                    raise Interrupted(f"training stopped at step {at.step}; resume continues there")
                if self._over():
                    break

    def _after_step(self, loss: float | None, should_stop: Callable[[], bool] | None = None) -> bool:
        """Process 0 logs and judges; whether to stop and what time it is, is the same for all then."""
        at, stop = self.at, False
        if self.group.first:
            at.elapsed = self.clock() - self.start
            if loss is not None:
                self._log_if_due(loss)
            self._evaluate_if_due()
            stop = loss is not None and should_stop is not None and should_stop()
        at.elapsed, stopped = self.group.agree([at.elapsed, float(stop)])
        return bool(stopped)

    def _step(self, x: dict[str, Tensor], y: Tensor | None) -> float:
        """One update; the mean loss of its sub-networks."""
        settings, net, progress = self.settings, self.net, self.progress()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(progress, settings)
        parts = self._parts(x, y)
        rng = np.random.default_rng([self.seed, _STEP_STREAM, self.at.step])
        picks = self.strategy.subnets(progress, rng)
        self.optimizer.zero_grad(set_to_none=True)
        in_place = settings.in_place and first_is_maximal(picks)
        total = 0.0
        for index, (subnet, _) in enumerate(picks):
            net.activate(subnet)
            for part in parts:
                outputs = net(part.x)
                loss = part.share * self.criterion(outputs, part.y, part.taught)
                loss.backward()  # type: ignore[no-untyped-call]
                total += float(loss.detach())
                if in_place and index == 0:
                    part.taught = detached(outputs)
        total = self._summed(total)
        if not math.isfinite(total):
            return self._diverged(total)
        self.bad = 0
        if settings.grad_clip is not None:
            torch.nn.utils.clip_grad_norm_(self.weights.values(), settings.grad_clip)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.weights)
        return total / len(picks)

    def _summed(self, loss: float) -> float:
        """The loss of all processes together; gradients are summed likewise."""
        if self.group.size == 1:
            return loss
        whole = torch.tensor([loss], device=self.net.device)
        self.group.total([whole, *(w.grad for w in self.weights.values() if w.grad is not None)])
        return float(whole)

    def _parts(self, x: dict[str, Tensor], y: Tensor | None) -> list[_Part]:
        """The samples in `settings.accumulate` parts, with what the teacher says of them."""
        n = int(next(iter(x.values())).shape[0])
        parts = []
        known = self._known(n)
        for index in range(self.settings.accumulate):
            place = part_of(n, self.settings.accumulate, index)
            if place.start == place.stop:
                continue
            inputs = {name: value[place] for name, value in x.items()}
            taught: Outputs | None = None
            if known is not None:
                taught = tuple(output[place].to(self.net.device) for output in known)
            elif self.teacher is not None and self.criterion.needs_teacher:
                asked = Mirrored(self.teacher, self.data) if self.settings.mirrored else self.teacher
                with torch.no_grad():
                    taught = asked(inputs)
            share = (place.stop - place.start) / self.batch
            parts.append(_Part(inputs, None if y is None else y[place], taught, share))
        return parts

    def _known(self, n: int) -> Outputs | None:
        """What the lessons have of this process' part, n samples, of the batch."""
        if self.lessons is None or not self.criterion.needs_teacher:
            return None
        epoch, index = self._place()
        own = part_of(self.batch, self.group.size, self.group.rank)
        first = index * self.settings.batch_size + own.start
        return self.lessons.of(epoch, slice(first, first + n))

    def _diverged(self, loss: float) -> float:
        """The update is left out; too many of them on end are an error."""
        self.bad += 1
        if self.bad >= _PATIENCE:
            raise CheckFailed(
                f"training diverged: the loss was not a number for {_PATIENCE} steps up to step {self.at.step}; "
                f"use a lower learning rate than {self.settings.lr}"
            )
        return loss

    def _log_if_due(self, loss: float) -> None:
        at = self.at
        if at.step % self.settings.log_steps and at.step != 1 and not self._over():
            return
        images, elapsed = self.recent
        self.recent = (at.images, at.elapsed)
        row = {
            "epoch": round(at.step / self.per_epoch, 4),
            "step": at.step,
            "seconds": round(at.elapsed, 3),
            "lr": self.optimizer.param_groups[0]["lr"],
            "loss": finite(loss),
            "images_per_second": round((at.images - images) / max(at.elapsed - elapsed, 1e-9), 1),
        }
        self.record.row(at, row)

    def _evaluate_if_due(self) -> None:
        at, every = self.at, self.settings.eval_every
        if every <= 0 or at.evaluated_at == at.step:
            return
        if at.step % max(1, round(every * self.per_epoch)) == 0 or self._over():
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
        judge = self.judge
        names: dict[str, Subnet] = {"max": self.space.maximal()}
        if settings.strategy != "fixed":
            names["min"] = self.sampler.minimal()
            for i in range(settings.eval_random):
                names[f"random_{i}"] = self.sampler.random(
                    np.random.default_rng([self.seed, _EVAL_STREAM, i])
                )
        kept = self._average_in()
        at.evaluation = {name: finite(judge.quality(subnet)) for name, subnet in names.items()}
        if kept is not None:
            self.net.load(kept)
        at.evaluated_at = at.step
        at.elapsed = self.clock() - self.start
        row = {"epoch": round(at.step / self.per_epoch, 4), "step": at.step, "seconds": round(at.elapsed, 3)}
        self.record.row(at, {**row, "eval": dict(at.evaluation)})
        self.recent = (at.images, at.elapsed)

    def _average_in(self) -> dict[str, Tensor] | None:
        """Load the averaged weights, giving back the present ones; None when no average is kept."""
        if self.average is None or self.average.steps == 0:
            return None
        kept = {name: w.detach().clone() for name, w in self.weights.items()}
        self.net.load(self.average.average)
        return kept
