"""Optimizer, learning rate and moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from onnxnas.errors import ConfigError
from onnxnas.plugins import is_reference, load_object
from onnxnas.supernet import SuperNetwork
from onnxnas.train.settings import TrainSettings


def learning_rate(progress: float, settings: TrainSettings) -> float:
    """The rate at `progress` (0 to 1) of the run: linear warm-up, then half a cosine."""
    if progress < settings.warmup:
        return settings.lr * max(progress / settings.warmup, 0.02)
    rest = (min(progress, 1.0) - settings.warmup) / max(1.0 - settings.warmup, 1e-9)
    low = settings.lr * settings.final_lr
    return low + (settings.lr - low) * 0.5 * (1.0 + math.cos(math.pi * rest))


def make_optimizer(net: SuperNetwork, settings: TrainSettings) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, AdamW, or the user's `module:name`, called with (groups, settings).

    Two groups: with weight decay, and without (biases, norms, kernel matrices). Raises ConfigError.
    """
    weights = net.named_weights()
    if not weights:
        raise ConfigError("the model has no float weights to train")
    groups: list[dict[str, Any]] = [
        {"params": [w for n, w in weights.items() if net.decays(n)], "weight_decay": settings.weight_decay},
        {"params": [w for n, w in weights.items() if not net.decays(n)], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if is_reference(settings.optimizer):
        made = load_object(settings.optimizer, what="optimizer")(groups, settings)
        if not isinstance(made, torch.optim.Optimizer):
            raise ConfigError(f"optimizer {settings.optimizer!r} gives {type(made).__name__}")
        return made
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.lr, betas=(settings.momentum, 0.99))
    if settings.optimizer != "sgd":
        raise ConfigError(f"optimizer {settings.optimizer!r} is unknown; expected sgd, adamw or module:name")
    nesterov = settings.momentum > 0
    return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, nesterov=nesterov)


class MovingAverage:
    """Exponential moving average of parameters, without the bias to the start: decay grows as (1+t)/(10+t)."""

    def __init__(self, weights: Mapping[str, nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.average: dict[str, Tensor] = {name: w.detach().clone() for name, w in weights.items()}

    @torch.no_grad()
    def update(self, weights: Mapping[str, nn.Parameter]) -> None:
        """Count the present weights in."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        torch._foreach_lerp_(
            [self.average[name] for name in weights], [w.detach() for w in weights.values()], 1 - decay
        )
