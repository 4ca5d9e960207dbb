"""BatchNormalization of many sub-networks that share weights.

Running statistics cannot be shared: each sub-network has its own. So nothing is tracked in training
(every batch is normalised by its own statistics), and before a sub-network is judged its statistics are
counted afresh over training images, augmented as in training. Over batches b of n_b values a channel with
mean m_b and variance v_b the cumulative statistics are

    m = sum(n_b m_b) / sum(n_b)        v = sum(n_b (v_b + m_b^2)) / sum(n_b) - m^2

which is the mean and (population) variance of all values, not an exponential average.
Source: Yu and Huang, Universally Slimmable Networks, 2019, section 3.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

State = Literal["train", "eval", "calibrate", "observe"]


@dataclass(frozen=True, eq=False)
class Statistics:
    """Recalibrated statistics of one sub-network.

    `mean` and `var` are by the name of the initializer that holds a BatchNormalization's running mean,
    each of as many values as the sub-network has channels there; `count` is the number of samples seen.
    """

    mean: Mapping[str, NDArray[np.float32]]
    var: Mapping[str, NDArray[np.float32]]
    count: int = 0


class BatchNormMode:
    """How BatchNormalization nodes normalise at the moment; one object per super-network.

    `keys` maps the name of a BatchNormalization node to the name of its running-mean initializer; nodes
    that share one (a module applied twice) share their statistics, as they must in the file.
    """

    def __init__(self, keys: Mapping[str, str]) -> None:
        self.keys = dict(keys)
        self.state: State = "train"
        self._fixed: dict[str, tuple[Tensor, Tensor]] = {}
        self._sums: dict[str, tuple[int, Tensor, Tensor]] = {}

    def use(self, statistics: Statistics | None, device: torch.device | str = "cpu") -> None:
        """Normalise by `statistics` in state 'eval'; None: by the values that the node itself reads."""
        self._fixed = {}
        if statistics is not None:
            for key, mean in statistics.mean.items():
                var = statistics.var[key]
                self._fixed[key] = (
                    torch.tensor(mean, dtype=torch.float32, device=device),
                    torch.tensor(var, dtype=torch.float32, device=device),
                )

    def start(self) -> None:
        """Forget what was counted; call before the batches of a calibration."""
        self._sums = {}

    def counted(self, samples: int) -> Statistics:
        """The cumulative statistics of all batches since `start`."""
        mean: dict[str, NDArray[np.float32]] = {}
        var: dict[str, NDArray[np.float32]] = {}
        for key, (count, first, second) in self._sums.items():
            m = first / count
            v = (second / count - m * m).clamp_min(0.0)
            mean[key] = m.to(torch.float32).cpu().numpy()
            var[key] = v.to(torch.float32).cpu().numpy()
        return Statistics(mean, var, samples)

    def batch_norm(
        self, node: str, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor, epsilon: float
    ) -> Tensor:
        """Normalise `x` (N x C x ...) at BatchNormalization `node`; the other tensors have C values."""
        if self.state == "train":
            return torch.batch_norm(x, scale, bias, None, None, True, 0.0, epsilon, False)
        if self.state == "calibrate":
            mean, var = self._count(self.keys[node], x)
        elif self.state == "observe":
            self._count(self.keys[node], x)
        else:
            fixed = self._fixed.get(self.keys[node])
            if fixed is not None:
                mean, var = fixed
        return torch.batch_norm(x, scale, bias, mean, var, False, 0.0, epsilon, False)

    def _count(self, key: str, x: Tensor) -> tuple[Tensor, Tensor]:
        axes = [0, *range(2, x.dim())]
        var, mean = torch.var_mean(x.float(), dim=axes, correction=0)
        n = x.numel() // x.shape[1]
        m, v = mean.double(), var.double()
        first, second = m * n, (v + m * m) * n
        if key in self._sums:
            count, a, b = self._sums[key]
            n, first, second = n + count, first + a, second + b
        self._sums[key] = (n, first, second)
        return mean, var
