"""What the teacher says of every batch, worked out once for several networks that are trained on the same batches.

Finalists learn from the same original, and an original of four times their multiply-accumulates costs as much to ask
as they cost to train. An epoch's batches, crops and flips are a function of (seed, epoch) (`data.TorchBatches`), so
networks trained with one seed see the same ones, and the teacher's outputs for an epoch are kept in one file.
Source of teaching each augmented image as it is seen: Beyer et al., Knowledge distillation: a good teacher is patient
and consistent, 2022.
"""

from __future__ import annotations

import itertools
import shutil
import time
from pathlib import Path

import safetensors
import torch
from safetensors import torch as safe_torch
from torch import Tensor

from onnxnas.data import DataSet
from onnxnas.data.torch_batches import TorchBatches
from onnxnas.errors import RunError
from onnxnas.train.checkpoint import write_atomic
from onnxnas.train.precision import in_bf16
from onnxnas.train.settings import TrainSettings
from onnxnas.train.teacher import Mirrored, Teacher


class Lessons:
    """The teacher's outputs by epoch, in files of `directory`, or in memory only when that is None.

    One epoch is held in memory at a time. Where epochs are `mirrored` (`TrainSettings`) two have the same answers.
    """

    def __init__(self, directory: Path | None = None, *, mirrored: bool = False) -> None:
        self.directory = directory
        self.mirrored = mirrored
        self._epoch: int | None = None
        self._held: tuple[Tensor, ...] = ()

    def of(self, epoch: int, span: slice) -> tuple[Tensor, ...] | None:
        """The outputs [b, ...] for the samples at `span` in the order of the epoch; None where there are none.

        Raises RunError when the epoch's file is damaged.
        """
        first = self._first(epoch)
        if first != self._epoch:
            self._held = self._read(first)
            self._epoch = first
        if not self._held or span.stop > self._held[0].shape[0]:
            return None
        return tuple(output[span] for output in self._held)

    def has(self, epoch: int) -> bool:
        """Whether the file of this epoch is there."""
        return self.directory is not None and self._path(epoch).is_file()

    def known(self) -> int:
        """How many epochs are there, from the first on."""
        return next(epoch for epoch in itertools.count() if not self.has(epoch))

    def forget_others(self) -> None:
        """Remove what lies beside this directory: answers about other batches."""
        if self.directory is not None and self.directory.parent.is_dir():
            for other in self.directory.parent.iterdir():
                if other != self.directory:
                    shutil.rmtree(other)

    def teach(
        self,
        teacher: Teacher,
        data: DataSet,
        settings: TrainSettings,
        *,
        seed: int,
        epoch: int,
        batches: int | None = None,
    ) -> float:
        """Ask the teacher about an epoch, or its first `batches`; samples per second, the first batch not counted.

        Where epochs are mirrored it is asked about both of the pair.
        """
        if settings.mirrored:
            teacher = Mirrored(teacher, data)
        teacher.bf16 = in_bf16(settings, teacher.device)
        source = TorchBatches(data.train, data, device=teacher.device, channels_last=teacher.channels_last)
        size = settings.batch_size
        told: list[tuple[Tensor, ...]] = []
        began, counted = time.perf_counter(), 0
        for x, _ in source.epoch(
            size,
            seed=seed,
            epoch=epoch,
            augment=settings.augment,
            mixed=settings.mixed,
            mirrored=settings.mirrored,
            drop_last=data.train.n >= size,
            limit=None if batches is None else batches * size,
        ):
            with torch.no_grad():
                told.append(tuple(output.cpu() for output in teacher(x)))
            if len(told) == 1:
                began = time.perf_counter()
            else:
                counted += told[-1][0].shape[0]
        rate = counted / max(time.perf_counter() - began, 1e-9)
        self._epoch = self._first(epoch)
        self._held = tuple(torch.cat(parts) for parts in zip(*told, strict=True))
        if self.directory is not None:
            content = {str(i): output.contiguous() for i, output in enumerate(self._held)}
            write_atomic(self._path(epoch), safe_torch.save(content))
        return rate

    def _first(self, epoch: int) -> int:
        """The epoch that has the same answers and comes first."""
        return epoch - epoch % 2 if self.mirrored else epoch

    def _path(self, epoch: int) -> Path:
        assert self.directory is not None
        return self.directory / f"epoch-{self._first(epoch):04d}.safetensors"

    def _read(self, epoch: int) -> tuple[Tensor, ...]:
        if not self.has(epoch):
            return ()
        path = self._path(epoch)
        try:
            found = safe_torch.load(path.read_bytes())
        except (OSError, safetensors.SafetensorError) as error:
            raise RunError(f"{path}: not readable ({error}); delete it to have it made again") from error
        return tuple(found[str(i)] for i in range(len(found)))
