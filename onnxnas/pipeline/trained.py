"""The super-network of a run, fresh or trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxnas import train
from onnxnas.supernet import SuperNetwork

if TYPE_CHECKING:
    from onnxnas.pipeline.run_dir import RunDirectory
    from onnxnas.space import SearchSpace


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
