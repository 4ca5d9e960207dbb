"""Optimizer, learning rate and moving average of the weights.

| optimizer | learning rate: super-network, fine-tuning | weight decay | for |
|---|---|---|---|
| `sgd` with Nesterov momentum | 0.02, 0.05 | 1e-4 | networks without attention |
| `adamw` | 5e-4, 1e-3 | 0.05 | networks with attention (Loshchilov and Hutter, Decoupled weight decay, 2019) |

One learning rate does not suit all parts of a transformer: curvature differs between embeddings, queries, keys and
values by orders of magnitude (Zhang et al., Why transformers need Adam: a Hessian perspective, 2024).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from onnxnas.analysis.depth import attends
from onnxnas.errors import ConfigError
from onnxnas.graph import Graph
from onnxnas.plugins import is_reference, load_object
from onnxnas.supernet import SuperNetwork
from onnxnas.train.settings import TrainSettings


@dataclass(frozen=True)
class Defaults:
    """What an optimizer is given when the user says nothing: peak learning rates and weight decay."""

    lr: float
    finetuning_lr: float
    weight_decay: float


OPTIMIZERS: Mapping[str, Defaults] = {
    "sgd": Defaults(0.02, 0.05, 1e-4),
    "adamw": Defaults(5e-4, 1e-3, 0.05),
}


def settled(settings: TrainSettings, graph: Graph) -> TrainSettings:
    """The settings with optimizer, learning rate and weight decay chosen, where they are left to the network.

    A user's own optimizer gets the values of sgd. Strategy `fixed` is fine-tuning. Raises ConfigError.
    """
    name = settings.optimizer
    if name == "auto":
        name = "adamw" if attends(graph, graph.nodes) else "sgd"
    if name not in OPTIMIZERS and not is_reference(name):
        raise ConfigError(
            f"optimizer {name!r} is unknown; expected auto, {', '.join(OPTIMIZERS)} or module:name"
        )
    own = OPTIMIZERS.get(name, OPTIMIZERS["sgd"])
    rate = own.finetuning_lr if settings.strategy == "fixed" else own.lr
    changes = {
        "optimizer": name,
        "lr": rate if settings.lr is None else settings.lr,
        "weight_decay": own.weight_decay if settings.weight_decay is None else settings.weight_decay,
    }
    return settings.model_copy(update=changes)


def learning_rate(progress: float, settings: TrainSettings) -> float:
    """The rate at `progress` (0 to 1) of the run, whose settings are settled: linear warm-up, then half a cosine."""
    if settings.lr is None:
        raise ValueError("settings without a learning rate; expected those that `settled` gives")
    if progress < settings.warmup:
        return settings.lr * max(progress / settings.warmup, 0.02)
    rest = (min(progress, 1.0) - settings.warmup) / max(1.0 - settings.warmup, 1e-9)
    low = settings.lr * settings.final_lr
    return low + (settings.lr - low) * 0.5 * (1.0 + math.cos(math.pi * rest))


def make_optimizer(net: SuperNetwork, settings: TrainSettings) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, AdamW, or the user's `module:name`, called with (groups, settings).

    Two groups: with weight decay, and without (biases, norms, kernel matrices). Raises ConfigError.
    """
    settings = settled(settings, net.space.graph)
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
    rate = learning_rate(1.0, settings)  # of no consequence: every step sets its own
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate, betas=(settings.momentum, 0.999))
    nesterov = settings.momentum > 0
    return torch.optim.SGD(groups, lr=rate, momentum=settings.momentum, nesterov=nesterov)


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
