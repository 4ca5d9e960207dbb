"""One sub-network as ONNX, with the original weights or with a run's trained ones.

max | min | random:SEED | FILE.json      which sub-network
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxnas import graph
from onnxnas.errors import ConfigError
from onnxnas.pipeline import rounding
from onnxnas.types import CHOICES, Subnet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnx import ModelProto

    from onnxnas.space import SearchSpace


_KEYS = frozenset({"model_sha256", *CHOICES})


def read_subnet(text: str, space: SearchSpace) -> Subnet:
    """The sub-network that `text` names in this space. Raises ConfigError."""
    if text == "max":
        return space.maximal()
    if text == "min":
        return space.minimal()
    if text.startswith("random:"):
        number = text.removeprefix("random:")
        if not number.isdecimal():
            raise ConfigError(
                f"--subnet {text}: got seed '{number}', expected a whole number, for example random:7"
            )
        return space.random(np.random.default_rng(int(number)))
    path = Path(text)
    if not path.is_file():
        raise ConfigError(f"--subnet {text}: no such file; give max, min, random:SEED or a JSON file")
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON ({error})") from error
    return subnet_of(body, space, str(path))


def subnet_of(body: Any, space: SearchSpace, where: str) -> Subnet:
    """A Subnet of the body of a sub-network file, judged by the space. Raises ConfigError."""
    if not isinstance(body, dict):
        raise ConfigError(
            f"{where}: got a {type(body).__name__}, expected an object with skip, width, kernel"
        )
    unknown = sorted(body.keys() - _KEYS)
    if unknown:
        raise ConfigError(f"{where}: unknown key '{unknown[0]}'; expected {', '.join(sorted(_KEYS))}")
    digest = body.get("model_sha256")
    if digest is not None and digest != space.graph.digest:
        raise ConfigError(
            f"{where}: made for model {str(digest)[:12]}..., this model is {space.graph.digest[:12]}...; "
            "ids are only valid for the model they were made for"
        )
    try:
        subnet = Subnet.from_json(body)
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{where}: not a sub-network ({error})") from error
    space.validate(subnet)
    rounding.validate(subnet, space.graph)
    return subnet


def extract(
    model: str | Path | ModelProto,
    subnet: str | Subnet | Mapping[str, Any] = "max",
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> ModelProto:
    """One sub-network of a model (original weights) or of a RUN (its trained weights, BatchNorm recalibrated).

    `subnet` is a `Subnet`, the body of a sub-network file, or text: max, min, random:SEED, FILE.json.
    Raises ModelError, ConfigError or RunError.
    """
    if isinstance(model, (str, Path)) and Path(model).is_dir():
        return _trained(Path(model), subnet)
    from onnxnas.pipeline.inspect import inspect

    space = inspect(model, shapes=shapes).space
    chosen = choose(subnet, space)
    if chosen.precision:
        raise ConfigError(
            "sub-network: precision below 32 bits takes data: give a RUN, or see `onnxnas quantize`"
        )
    return graph.rewrite(space.graph, space.plan(chosen))


def choose(subnet: str | Subnet | Mapping[str, Any], space: SearchSpace) -> Subnet:
    """Any of the ways to say a sub-network, as a Subnet of this space. Raises ConfigError."""
    if isinstance(subnet, Subnet):
        space.validate(subnet)
        rounding.validate(subnet, space.graph)
        return subnet
    return read_subnet(subnet, space) if isinstance(subnet, str) else subnet_of(dict(subnet), space, "subnet")


def _trained(path: Path, subnet: str | Subnet | Mapping[str, Any]) -> ModelProto:
    """One sub-network of a run with its trained weights, BatchNorm statistics counted from the run's data."""
    from onnxnas.pipeline import finalists
    from onnxnas.pipeline.candidates import Candidates
    from onnxnas.pipeline.line import Line
    from onnxnas.pipeline.measuring import measurer

    line = Line.at(path)
    chosen = choose(subnet, line.space)
    if chosen.precision:
        with measurer(line) as measuring:
            images = line.config.finalise.recalibration_images
            candidates = Candidates(line, measuring, recalibration_images=images)
            return candidates.made(chosen, candidates.statistics(chosen)).proto()
    edits = line.network.export_edits(chosen, finalists.judge(line).statistics(chosen))
    return graph.rewrite(line.graph, edits)
