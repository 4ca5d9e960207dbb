"""A torch module to an ONNX file with a free batch size, compared with torch before it gets its name.

Two exporters: TorchScript's keeps BatchNormalization (asked to preserve the module's evaluation mode, it
skips the pass that folds it into convolutions), and is the default; torch.export's folds it.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from onnxnas.errors import CheckFailed, ConfigError, EnvironmentProblem
from onnxnas.exporting.module import build_module
from onnxnas.graph import save
from onnxnas.measure import get_runtime

Exporter = Literal["torchscript", "dynamo"]
OPSET: Mapping[str, int] = {"torchscript": 17, "dynamo": 18}
TOLERANCE = 1e-3
_TRACE_BATCH = 2


@dataclass(frozen=True)
class InputSpec:
    """A model input: `shape` with the batch first."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"


@dataclass(frozen=True)
class Exported:
    """What was written. `max_abs` and `max_rel` = max |a-b| / max |b|: the worst over outputs and batches."""

    path: Path
    max_abs: float
    max_rel: float
    batches: tuple[int, ...]
    opset: int
    notes: tuple[str, ...]


def parse_input(text: str) -> InputSpec:
    """`x=1,3,32,32` or `ids=1,128:int64`.

    Raises:
        ConfigError: not of that form.
    """
    name, equals, rest = text.partition("=")
    sizes, _, dtype = rest.partition(":")
    try:
        shape = tuple(int(s) for s in sizes.split(","))
    except ValueError:
        shape = ()
    if not name or not equals or not shape or min(shape) < 1:
        raise ConfigError(f"input {text!r}: expected name=1,3,32,32 (batch first), optionally :int64")
    if not isinstance(getattr(torch, dtype or "float32", None), torch.dtype):
        raise ConfigError(f"input {text!r}: unknown element type {dtype!r}; for example float32, int64")
    return InputSpec(name, shape, dtype or "float32")


def export(
    spec: str,
    inputs: Sequence[InputSpec],
    path: Path,
    *,
    weights: Path | None = None,
    exporter: Exporter = "torchscript",
    seed: int = 0,
) -> Exported:
    """The module that `module.py:function` builds, as ONNX at `path`.

    Raises:
        ConfigError: the function, the weights or the inputs cannot be used; the module cannot be exported.
        CheckFailed: the file does not compute what torch does; nothing is left at `path`.
    """
    return export_module(build_module(spec, weights), inputs, path, exporter=exporter, seed=seed)


def export_module(
    module: nn.Module,
    inputs: Sequence[InputSpec],
    path: Path,
    *,
    exporter: Exporter = "torchscript",
    seed: int = 0,
) -> Exported:
    """`module`, put in evaluation mode, as ONNX at `path`; checked with batches of 1 and 3.

    Raises:
        ConfigError: the module does not take these inputs or cannot be exported.
        CheckFailed: the file differs from torch by more than 1e-3 relative, or fixes the batch size.
        EnvironmentProblem: the exporter needs a package that is not installed.
    """
    if not inputs:
        raise ConfigError("export needs at least one input, such as x=1,3,32,32")
    if len({i.name for i in inputs}) < len(inputs):
        raise ConfigError(f"export: input names repeat: {[i.name for i in inputs]}")
    module.eval()
    example = _feeds(inputs, _TRACE_BATCH, seed)
    outputs = _run_torch(module, example)
    names = ["output"] if len(outputs) == 1 else [f"output_{i}" for i in range(len(outputs))]
    with tempfile.TemporaryDirectory(prefix="onnxnas_export_") as folder:
        file = Path(folder) / "model.onnx"
        notes = _export(module, list(example.values()), [i.name for i in inputs], names, file, exporter)
        model = onnx.load(file)
    _separate(model, module)
    worst = _compare(module, model, inputs, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    save(model, path)
    return Exported(path, *worst, _CHECK_BATCHES, model.opset_import[0].version, notes)


_CHECK_BATCHES = (1, 3)


def _export(
    module: nn.Module,
    example: list[Tensor],
    inputs: list[str],
    outputs: list[str],
    file: Path,
    exporter: Exporter,
) -> tuple[str, ...]:
    try:
        with _quiet() as caught:
            if exporter == "torchscript":
                torch.onnx.export(
                    module,
                    tuple(example),
                    str(file),
                    input_names=inputs,
                    output_names=outputs,
                    dynamic_axes={name: {0: "batch"} for name in (*inputs, *outputs)},
                    opset_version=OPSET[exporter],
                    training=torch.onnx.TrainingMode.PRESERVE,
                    dynamo=False,
                )
            else:
                batch = torch.export.Dim("batch")
                torch.onnx.export(
                    module,
                    tuple(example),
                    str(file),
                    input_names=inputs,
                    output_names=outputs,
                    dynamic_shapes=tuple({0: batch} for _ in example),
                    opset_version=OPSET[exporter],
                    dynamo=True,
                    external_data=False,
                    verbose=False,
                )
    except ImportError as error:
        raise EnvironmentProblem(
            f"the {exporter} exporter needs a package: {error}; pip install onnxscript"
        ) from error
    except Exception as error:
        first = str(error).strip().splitlines()[:1]
        raise ConfigError(
            f"the {exporter} exporter refused: {type(error).__name__}: {' '.join(first)}"
        ) from error
    traced = (str(w.message).splitlines()[0] for w in caught if w.category.__name__ == "TracerWarning")
    return tuple(dict.fromkeys(traced))


def _separate(model: onnx.ModelProto, module: nn.Module) -> None:
    """Gives parameters of their own back to the model, in place.

    The TorchScript exporter merges parameters that happen to be equal (a fresh BatchNorm's variance and
    weight) into one initializer and an Identity named as the other; training would then tie them. Those
    that share memory in the module stay one.
    """
    state = module.state_dict(keep_vars=True)
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in list(model.graph.node):
        if node.op_type != "Identity" or node.input[0] not in initializers or node.output[0] not in state:
            continue
        source = state.get(node.input[0])
        if source is not None and source.data_ptr() != state[node.output[0]].data_ptr():
            copy = model.graph.initializer.add()
            copy.CopyFrom(initializers[node.input[0]])
            copy.name = node.output[0]
            model.graph.node.remove(node)


@contextlib.contextmanager
def _quiet() -> Iterator[list[warnings.WarningMessage]]:
    """Exporters announce their own deprecation, print and log; what they warn of is collected instead."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("always")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield caught
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _compare(
    module: nn.Module, model: onnx.ModelProto, inputs: Sequence[InputSpec], seed: int
) -> tuple[float, float]:
    worst_abs = worst_rel = 0.0
    for batch in _CHECK_BATCHES:
        feeds = _feeds(inputs, batch, seed + batch)
        expected = _run_torch(module, feeds)
        got = _run_onnx(model, {name: value.numpy() for name, value in feeds.items()}, batch)
        for index, (a, b) in enumerate(zip(got, expected, strict=True)):
            if a.shape != b.shape:
                raise CheckFailed(
                    f"export: output {index} has shape {a.shape} at batch {batch}, torch {b.shape}"
                )
            difference = float(np.abs(a.astype(np.float64) - b).max(initial=0.0))
            worst_abs = max(worst_abs, difference)
            worst_rel = max(worst_rel, difference / max(float(np.abs(b).max(initial=0.0)), 1e-12))
    if not worst_rel <= TOLERANCE:
        raise CheckFailed(
            f"export: the ONNX file differs from torch by {worst_rel:.2g} relative; at most {TOLERANCE}"
        )
    return worst_abs, worst_rel


def _run_onnx(model: onnx.ModelProto, feeds: dict[str, NDArray[Any]], batch: int) -> list[NDArray[Any]]:
    runtime = get_runtime("onnxruntime")
    known = {i.name for i in model.graph.input}
    try:
        session = runtime.load(model.SerializeToString(), runtime.defaults(1))
        return list(session.run({k: v for k, v in feeds.items() if k in known}))
    except Exception as error:
        first = str(error).strip().splitlines()[:1]
        raise CheckFailed(f"export: ONNX Runtime fails at batch {batch}: {' '.join(first)}") from error


def _run_torch(module: nn.Module, feeds: Mapping[str, Tensor]) -> list[NDArray[Any]]:
    try:
        with torch.no_grad():
            made = module(*feeds.values())
    except Exception as error:
        first = str(error).strip().splitlines()[:1]
        shapes = {name: list(value.shape) for name, value in feeds.items()}
        raise ConfigError(f"the module fails on inputs {shapes}: {' '.join(first)}") from error
    parts = (
        list(made.values())
        if isinstance(made, dict)
        else list(made)
        if isinstance(made, tuple | list)
        else [made]
    )
    if not all(isinstance(part, Tensor) for part in parts):
        raise ConfigError(
            f"the module returns {type(made).__name__}; expected a tensor or a tuple of tensors"
        )
    return [part.numpy() for part in parts]


def _feeds(inputs: Sequence[InputSpec], batch: int, seed: int) -> dict[str, Tensor]:
    """Normal values for floats, 0 or 1 for integers and booleans, which are inside any table."""
    generator = torch.Generator().manual_seed(seed)
    feeds = {}
    for spec in inputs:
        dtype, shape = getattr(torch, spec.dtype), (batch, *spec.shape[1:])
        if dtype.is_floating_point:
            feeds[spec.name] = torch.randn(shape, generator=generator).to(dtype)
        else:
            feeds[spec.name] = torch.randint(0, 2, shape, generator=generator).to(dtype)
    return feeds
