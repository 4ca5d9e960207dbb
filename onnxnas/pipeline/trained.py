"""The super-network of a run, fresh or trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxnas import train
from onnxnas.supernet import SuperNetwork

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnx import ModelProto

    from onnxnas.pipeline.run_dir import RunDirectory
    from onnxnas.space import SearchSpace
    from onnxnas.types import Subnet

RECALIBRATION_IMAGES = 4096


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


def extract_trained(path: Path, subnet: str | Subnet | Mapping[str, Any]) -> ModelProto:
    """One sub-network of a run with its trained weights, BatchNorm statistics counted from the run's data."""
    from onnxnas import graph
    from onnxnas.pipeline import config
    from onnxnas.pipeline.events import Silent
    from onnxnas.pipeline.extract import choose
    from onnxnas.pipeline.line import Line
    from onnxnas.pipeline.run_dir import RunDirectory

    run = RunDirectory(path)
    run.require()
    line = Line(run, config.load(run / "config.yaml"), Silent())
    chosen = choose(subnet, line.space)
    judge = train.Judge(
        line.network,
        line.data,
        "val",
        line.metric,
        recalibration_images=RECALIBRATION_IMAGES,
        seed=line.config.seed,
    )
    edits = line.network.export_edits(chosen, judge.statistics(chosen))
    return graph.rewrite(line.graph, edits)
