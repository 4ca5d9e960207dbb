"""The super-network of a run, fresh or trained, and how fast networks train."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from onnxnas import train
from onnxnas.supernet import SuperNetwork

if TYPE_CHECKING:
    from onnxnas.pipeline.run_dir import RunDirectory
    from onnxnas.space import SearchSpace
    from onnxnas.train.settings import TrainSettings

_WARM, TIMED = 2, 6  # steps
_LONG = 5.0  # seconds of two steps, beside which warming up is nothing

Fit = Callable[["SuperNetwork", "TrainSettings"], train.TrainResult]


def fresh(space: SearchSpace, device: str) -> SuperNetwork:
    """The super-network with the weights of the prepared file."""
    return on(SuperNetwork(space), device)


def network(run: RunDirectory, space: SearchSpace, device: str = "cpu") -> SuperNetwork:
    """The super-network with the weights that the train stage left. Raises RunError."""
    return on(SuperNetwork(space, weights=train.load_weights(run / "supernet")), device)


def on(made: SuperNetwork, device: str) -> SuperNetwork:
    """The network on a device. Raises EnvironmentProblem when that is not there."""
    from onnxnas.errors import EnvironmentProblem

    try:
        return made.to(device)
    except (RuntimeError, AssertionError) as error:
        raise EnvironmentProblem(
            f"--device {device}: {' '.join(str(error).split())[:200]}; use cpu"
        ) from error


def speed(samples: int, network: SuperNetwork, settings: TrainSettings, fit: Fit) -> float:
    """Samples per second of training `network`, which is changed by it: a few steps after a few for warm-up.

    Where two steps take long, they are all that is timed. `fit` trains a network with settings on so many samples.
    """
    per_epoch = max(1, samples // settings.batch_size)
    short = settings.model_copy(update={"eval_every": 0.0, "max_seconds": None})
    rate = 0.0
    for steps in (_WARM, TIMED):
        wanted = short.model_copy(update={"epochs": steps / per_epoch})
        result = fit(network, wanted)
        rate = result.images_per_second
        if result.seconds > _LONG:
            break
    return max(rate, 1e-3)
