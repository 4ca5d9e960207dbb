"""Whom a network learns from: another one, several together, or one that looks twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from onnxnas.data import DataSet
from onnxnas.graph import Graph
from onnxnas.supernet import FixedSpace, SuperNetwork


class Teacher(Protocol):
    """A frozen network, or what answers like one; a `SuperNetwork` is a teacher."""

    bf16: bool
    channels_last: bool

    @property
    def device(self) -> torch.device: ...

    def __call__(self, inputs: dict[str, Tensor], /) -> tuple[Tensor, ...]: ...


def frozen(net: SuperNetwork) -> SuperNetwork:
    """The same object, in evaluation mode and without gradients."""
    net.eval().requires_grad_(False)
    return net


def teacher_of(graph: Graph) -> SuperNetwork:
    """The network of this file, frozen, to learn from."""
    return frozen(SuperNetwork(FixedSpace(graph)))


class Ensemble:
    """Several teachers that answer as one: each output is the mean of theirs (of logits, where those are outputs).

    What an ensemble knows, one network can be taught, though all of them know the training samples by heart
    (Allen-Zhu and Li, Towards understanding ensemble, knowledge distillation and self-distillation in deep learning,
    2020); that the next generation learns from all before it is from Furlanello et al., Born-again neural networks,
    2018. The members are on one device. Raises ValueError when there are none.
    """

    def __init__(self, members: Sequence[SuperNetwork]) -> None:
        if not members:
            raise ValueError("an ensemble of no members; expected at least one")
        self.members = tuple(members)
        self.channels_last = members[0].channels_last

    @property
    def bf16(self) -> bool:
        """Whether the members compute in bfloat16."""
        return self.members[0].bf16

    @bf16.setter
    def bf16(self, value: bool) -> None:
        for member in self.members:
            member.bf16 = value

    @property
    def device(self) -> torch.device:
        """Where the members are."""
        return self.members[0].device

    def __call__(self, inputs: dict[str, Tensor], /) -> tuple[Tensor, ...]:
        answers = [member(inputs) for member in self.members]
        return tuple(torch.stack(outputs).mean(0) for outputs in zip(*answers, strict=True))


class Mirrored:
    """A teacher that looks at every picture and at its mirror image, and says the mean of both answers.

    Of class scores: [n, k]. Both images have the same answer then, which is better than that to either where a flip
    does not change what a picture is (Krizhevsky et al. 2012, section 4.1, average so when they test).
    """

    def __init__(self, teacher: Teacher, data: DataSet) -> None:
        self.teacher = teacher
        self.channels_last = teacher.channels_last
        self._pictures = set(data.images)
        self._across = -2 if data.normalise.model_layout == "nhwc" else -1

    @property
    def bf16(self) -> bool:
        """Whether the teacher computes in bfloat16."""
        return self.teacher.bf16

    @bf16.setter
    def bf16(self, value: bool) -> None:
        self.teacher.bf16 = value

    @property
    def device(self) -> torch.device:
        """Where the teacher is."""
        return self.teacher.device

    def __call__(self, inputs: dict[str, Tensor], /) -> tuple[Tensor, ...]:
        other = {
            name: x.flip(self._across) if name in self._pictures and x.dim() == 4 else x
            for name, x in inputs.items()
        }
        answers = zip(self.teacher(inputs), self.teacher(other), strict=True)
        return tuple((one + two) / 2 for one, two in answers)
