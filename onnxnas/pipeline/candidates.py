"""What becomes of a sub-network of the trained super-network that is a candidate: its file, and how good that is.

    recalibrate BatchNorm -> cut out of the ONNX file -> round -> judge

A network in floats is judged in torch, which is what the file computes; one that is rounded in the runtime, where it
will be what it is: what saturates on one processor does not on another.

The original in other numbers has the original's weights, not those that training with shared weights made of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxnas import train
from onnxnas.pipeline import build
from onnxnas.pipeline.rounding import Rounder
from onnxnas.types import Subnet

if TYPE_CHECKING:
    import rewriters
    from onnxnas.measure import Measurer
    from onnxnas.pipeline.line import Line
    from onnxnas.supernet import Statistics


def untouched(subnet: Subnet) -> bool:
    """Whether it is the original but for its numbers, so that its weights are those of the original."""
    return bool(subnet.precision) and subnet.structure == Subnet()


class Candidates:
    """Those of one run, judged by `limit` samples of a split, statistics from `recalibration_images` samples.

    `measuring` is for what is rounded.
    """

    def __init__(
        self, line: Line, measuring: Measurer, *, recalibration_images: int, limit: int | None = None
    ) -> None:
        self._network, self._original = line.network, line.original.parts
        self._judge = train.Judge(
            line.network,
            line.data,
            "val",
            line.metric,
            recalibration_images=recalibration_images,
            limit=limit,
            seed=line.config.seed,
        )
        self._rounder = Rounder(measuring, line.data, line.config.seed)
        self._in_runtime = build.InRuntime(measuring, line.baseline, line.data, "val", line.metric, limit)

    def statistics(self, subnet: Subnet) -> Statistics:
        """Of its BatchNormalizations."""
        return self._judge.statistics(subnet.structure)

    def made(self, subnet: Subnet, statistics: Statistics) -> rewriters.Parts:
        """The file, in its parts. Raises ModelError, CandidateError when it cannot be made."""
        if untouched(subnet):
            floats = build.fold(self._original)
        else:
            floats = build.cut(self._network, subnet.structure, statistics)
        return self._rounder.rounded(floats, subnet.precision)

    def quality(self, subnet: Subnet, statistics: Statistics, model: bytes) -> float:
        """How good it is; `model` is its file. Raises CandidateError when that does not run."""
        if subnet.precision:
            return self._in_runtime.quality(model)
        return self._judge.quality(subnet.structure, statistics)

    def judged(self, subnet: Subnet) -> float:
        """`quality` of a sub-network of which nothing has been made yet."""
        statistics = self.statistics(subnet)
        model = self.made(subnet, statistics).to_bytes() if subnet.precision else b""
        return self.quality(subnet, statistics, model)
