"""Stage 1: from the user's model to a graph that can be trained and cut.

    load -> analyse -> BatchNorm in place -> most important units first -> model.onnx, space.json

`examine` judges model and data and writes nothing; `start` makes the run directory; `run` does the rest.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxnas import analysis, data, graph, measure, ops, space
from onnxnas.errors import ConfigError, DataError, ModelError
from onnxnas.pipeline import any_batch, build, files, finalists, prepared, rounding, serving
from onnxnas.pipeline import config as configuration
from onnxnas.pipeline.check import as_it_came, same_function
from onnxnas.pipeline.line import Line
from onnxnas.pipeline.run_dir import RunDirectory

if TYPE_CHECKING:
    from onnx import ModelProto


@dataclass(frozen=True, eq=False)
class Source:
    """What the user gave, loaded and judged."""

    graph: graph.Graph
    data: data.DataSet
    content: bytes
    notes: tuple[str, ...] = ()


def examine(config: configuration.Config, model: ModelProto | None = None) -> Source:
    """Load model and data and judge whether a run is possible. Writes nothing.

    Raises ModelError, DataError or ConfigError with what is wrong and what to do.
    """
    given: Any = Path(config.model) if model is None else model
    loaded = graph.load(given, shapes=config.shapes, least_opset=config.least_opset)
    _trainable(loaded, config)
    content = _serialised(given, loaded)
    loaded, content, notes = any_batch.free(loaded, content, config.model, config.shapes, config.least_opset)
    dataset = data.load(
        config.data,
        [loaded.tensors[name] for name in loaded.inputs],
        outputs=[loaded.tensors[name] for name in loaded.outputs],
        seed=config.seed,
    )
    if dataset.train.n < config.train.batch_size:
        raise DataError(
            f"{config.data}: {dataset.train.n} training samples, expected at least one batch of "
            f"{config.train.batch_size}; give more data or a smaller train.batch_size"
        )
    if finalists.exact(dataset, data.metric_of(dataset)) and "quality" not in config.limits:
        raise ConfigError(
            f"{config.data}: without labels the original is compared with itself, and {dataset.metric} has no best "
            "value that max_drop could be taken from; say the least quality that is good enough, such as "
            "`--limit quality=38`"
        )
    if config.finalise.samples == "all":
        dataset.spare_validation()
    found = space.build(analysis.analyse(loaded), elastic=config.elastic, order="none")
    if not found.dimensions:
        raise ModelError(_nothing(config, found))
    measure.get_runtime(config.runtime)
    if config.runtime_settings:  # what the runtime refuses is better said before the training than after it
        with measure.Measurer(config.target, content, build.feeds(loaded, dataset, config.batch)):
            pass
    serving.examine(config, loaded, dataset, content)
    rounding.examine(config, loaded, dataset, content)
    return Source(loaded, dataset, content, notes)


def _serialised(given: Any, loaded: graph.Graph) -> bytes:
    """The user's model as one file; its canonical form when its weights lie in others. Raises ModelError."""
    model = as_it_came(given, loaded)
    if isinstance(model, bytes):
        return model
    if graph.too_large(loaded.model):
        raise ModelError(
            f"{model}: more than 2 GB of weights; such models can be inspected, checked, extracted and benchmarked, "
            "but a run keeps its candidates in single files: give a smaller model"
        )
    return bytes(loaded.model.SerializeToString())


def start(run: RunDirectory, config: configuration.Config, source: Source) -> None:
    """Make the run directory; `config.yaml`, written last, is what makes it one."""
    files.write_bytes(run / "baseline.onnx", source.content)
    files.write_json(run / "environment.json", measure.environment())
    identity = {"model_sha256": source.graph.digest, "data_sha256": source.data.digest}
    files.write_json(run / "stages" / "run.json", {"schema": 1, **identity, "notes": list(source.notes)})
    configuration.save(config, run / "config.yaml")


def compare_environment(line: Line) -> None:
    """Say so when the run continues in another environment than it was begun in."""
    begun, now = files.read_json(line.run / "environment.json"), measure.environment()
    if begun.get("digest") != now.get("digest"):
        changed = sorted(key for key in begun.keys() | now.keys() if begun.get(key) != now.get(key))
        line.say(f"note: the environment has changed since this run was begun ({', '.join(changed)})")


def run(line: Line) -> None:
    """Write model.onnx and space.json."""
    began = time.perf_counter()
    for note in line.model_notes:
        line.say(f"model: {note}")
    for note in line.data.notes:
        line.say(f"data: {note}")
    missing = prepared.missing(line.original, line.config)
    if missing:
        line.say(f"prepare: BatchNorm was folded; put back behind {len(missing)} convolutions")
    found = prepared.made(line.original, missing, line.config, line.data)
    _same_function(line, found)
    graph.save(found.graph.model, line.run / "model.onnx")
    files.write_json(line.run / "space.json", found.to_json())
    line.say(
        f"prepare: {len(found.blocks)} blocks, {len(found.groups)} width groups, {len(found.kernels)} kernels; "
        f"10^{found.size_log10:.1f} sub-networks"
    )
    line.run.finish("prepare", time.perf_counter() - began, ("model.onnx", "space.json"))


def _same_function(line: Line, found: space.SearchSpace) -> None:
    """Raise ModelError when what was prepared does not compute what the user's model computes."""
    feeds = build.feeds(line.original, line.data, min(4, line.data.val.n))
    same_function(found.graph.model.SerializeToString(), line.baseline, feeds, line.config.model)


def _trainable(loaded: graph.Graph, config: configuration.Config) -> None:
    floats = [
        name for name, array in loaded.initializers.items() if array.dtype.kind == "f" and array.size > 1
    ]
    if not floats:
        raise ModelError(
            f"{config.model}: no float weights, got only integers; expected a model before quantisation"
        )
    for node in loaded.nodes:
        spec = ops.resolve(node)
        if spec is None or spec.torch is None:
            raise ModelError(
                f"{config.model}: node '{node.name}' is a {node.domain or 'ai.onnx'} {node.op_type}, which cannot be "
                "trained here; `onnxnas inspect` lists what can change"
            )


def _nothing(config: configuration.Config, found: space.SearchSpace) -> str:
    return (
        f"{config.model}: nothing in this model can change with elastic {', '.join(config.elastic)}; "
        "`onnxnas inspect` says why"
    )
