"""Several processes that train one network: each works on its part of every batch, and all make the same update.

Gradients are summed once per update, after all its sub-networks (torch's DistributedDataParallel would do it after
each backward pass). Process 0 keeps the log and the checkpoints, judges, and decides when to stop. The processes may
be on one host or on several that see the same files; BatchNormalization counts its statistics over a part, as when
one process works on a batch in as many parts (`TrainSettings.accumulate`).
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed

from onnxnas.errors import EnvironmentProblem

_MEETING = datetime.timedelta(minutes=3)
_PATIENCE = datetime.timedelta(hours=2)  # the others wait while process 0 judges sub-networks


class Group:
    """This process among `size`; alone unless `joined`. Methods raise EnvironmentProblem when a process is gone."""

    def __init__(self, rank: int = 0, size: int = 1, handle: Any = None) -> None:
        self.rank, self.size, self._handle = rank, size, handle

    @property
    def first(self) -> bool:
        """Whether this process writes and decides."""
        return self.rank == 0

    def agree(self, values: Sequence[float]) -> list[float]:
        """What process 0 says these are."""
        if self.size == 1:
            return list(values)
        told = torch.tensor(values, dtype=torch.float64, device=self._device())
        self._broadcast(told)
        return [float(v) for v in told]

    def total(self, tensors: Iterable[Tensor]) -> None:
        """Replace the tensors by their sums over all processes."""
        if self.size == 1:
            return
        own = list(tensors)
        flat = torch.cat([t.detach().reshape(-1).float() for t in own])
        with _together():
            distributed.all_reduce(flat, group=self._handle)
        at = 0
        for tensor in own:
            tensor.copy_(flat[at : at + tensor.numel()].view(tensor.shape))
            at += tensor.numel()

    def tell(self, request: Mapping[str, Any]) -> None:
        """Process 0 says something that the others `hear`."""
        content = torch.frombuffer(bytearray(json.dumps(request).encode()), dtype=torch.uint8)
        self.agree([float(len(content))])
        self._broadcast(content.to(self._device()))

    def hear(self) -> dict[str, Any]:
        """What process 0 says next."""
        (length,) = self.agree([0.0])
        content = torch.zeros(int(length), dtype=torch.uint8, device=self._device())
        self._broadcast(content)
        heard: dict[str, Any] = json.loads(bytes(content.cpu().numpy()))
        return heard

    def _broadcast(self, tensor: Tensor) -> None:
        with _together():
            distributed.broadcast(tensor, 0, group=self._handle)

    def _device(self) -> str:
        return "cuda" if distributed.get_backend() == "nccl" else "cpu"


@contextmanager
def joined(rank: int, size: int, meeting: str, device: str = "cpu") -> Iterator[Group]:
    """The group of `size` processes that meet at `meeting`: a file:// or tcp:// address, or env:// of torchrun.

    Raises EnvironmentProblem when they do not meet within three minutes.
    """
    if size == 1:
        yield Group()
        return
    backend = "nccl" if device.startswith("cuda") else "gloo"
    if device.startswith("cuda:"):
        torch.cuda.set_device(device)
    # torch names groups by how many it has made, failed ones too: all must begin alike to find each other
    distributed.distributed_c10d._world.group_count = 0
    with _together():
        distributed.init_process_group(
            backend, init_method=meeting, rank=rank, world_size=size, timeout=_MEETING
        )
    try:
        with _together():
            handle = distributed.new_group(timeout=_PATIENCE)
        yield Group(rank, size, handle)
    finally:
        distributed.destroy_process_group()


@contextmanager
def threads(count: int) -> Iterator[None]:
    """With torch working on so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _together() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        said = " ".join(str(error).split())[:200]
        raise EnvironmentProblem(f"a process of the training is gone: {said}; resume continues") from error
