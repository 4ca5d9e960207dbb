"""The super-network of a run, fresh or trained, and how fast networks train."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxnas import train
from onnxnas.supernet import SuperNetwork

if TYPE_CHECKING:
    from onnxnas.pipeline.line import Line
    from onnxnas.pipeline.run_dir import RunDirectory
    from onnxnas.space import SearchSpace
    from onnxnas.train.settings import TrainSettings

_WARM, _TIMED = 2, 6  # steps


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


def speed(line: Line, network: SuperNetwork, settings: TrainSettings) -> float:
    """Samples per second of training `network`, which is changed by it: a few steps after a few for warm-up."""
    per_epoch = max(1, line.data.train.n // settings.batch_size)
    short = settings.model_copy(update={"eval_every": 0.0, "max_seconds": None})
    rate = 0.0
    for steps in (_WARM, _TIMED):
        wanted = short.model_copy(update={"epochs": steps / per_epoch})
        rate = train.train(
            network, line.data, wanted, directory=None, seed=line.config.seed
        ).images_per_second
    return max(rate, 1e-3)
