"""ONNX Runtime, CPU execution provider, as a `Runtime`."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import numpy as np

from onnxnas.errors import ConfigError, EnvironmentProblem, ModelError
from onnxnas.measure.runtime import Array, Call, Model, Session, check_threads

_MODES = {"sequential": "ORT_SEQUENTIAL", "parallel": "ORT_PARALLEL"}
_LEVELS = {
    "disabled": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
_DIRECT: dict[str, type] = {
    "intra_op_num_threads": int,
    "inter_op_num_threads": int,
    "enable_cpu_mem_arena": bool,
    "enable_mem_pattern": bool,
    "enable_mem_reuse": bool,
}
_NAMES = (*_DIRECT, "execution_mode", "graph_optimization_level", "allow_spinning", "config")


class OnnxRuntime:
    """ONNX Runtime on the CPU.

    Settings: `intra_op_num_threads`, `inter_op_num_threads`, `execution_mode` (sequential|parallel),
    `graph_optimization_level` (disabled|basic|extended|all), `enable_cpu_mem_arena`,
    `enable_mem_pattern`, `enable_mem_reuse`, `allow_spinning`, and `config`: a mapping of session
    configuration entries ('session.set_denormal_as_zero': '1'), passed on as they are.
    """

    name = "onnxruntime"

    def version(self) -> str:
        try:
            return importlib.metadata.version("onnxruntime")
        except importlib.metadata.PackageNotFoundError:
            raise EnvironmentProblem("onnxruntime is not installed; pip install onnxruntime") from None

    def defaults(self, threads: int) -> dict[str, Any]:
        return {
            "intra_op_num_threads": threads,
            "inter_op_num_threads": 1,
            "execution_mode": "sequential",
            "graph_optimization_level": "all",
            "enable_cpu_mem_arena": True,
            "enable_mem_pattern": True,
            "enable_mem_reuse": True,
            "allow_spinning": True,
            "config": {},
        }

    def knobs(self, threads: int) -> Mapping[str, tuple[Any, ...]]:
        return {
            "intra_op_num_threads": (threads, *(n for n in range(1, threads))),
            "execution_mode": ("sequential", "parallel"),
            "inter_op_num_threads": (1, 2),
            "graph_optimization_level": ("all", "extended", "basic"),
            "enable_cpu_mem_arena": (True, False),
            "enable_mem_pattern": (True, False),
            "allow_spinning": (True, False),
        }

    def load(self, model: Model, settings: Mapping[str, Any]) -> Session:
        try:
            import onnxruntime
        except ImportError as error:
            raise EnvironmentProblem(
                f"onnxruntime cannot be imported: {error}; pip install onnxruntime"
            ) from error
        options = _options(onnxruntime, settings)
        try:
            session = onnxruntime.InferenceSession(
                model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise ModelError(f"ONNX Runtime cannot load the model: {error}") from error
        for output in session.get_outputs():
            if not output.type.startswith("tensor("):
                hint = (
                    "; convert scikit-learn models with the option zipmap=False"
                    if "map(" in output.type
                    else ""
                )
                raise ModelError(
                    f"output {output.name!r} is a {output.type}; only tensors can be compared{hint}"
                )
        return _Session(session)


class _Session(Session):
    def __init__(self, session: Any) -> None:
        self._session = session
        self._outputs = [output.name for output in session.get_outputs()]

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        try:
            outputs: list[Array] = self._session.run(self._outputs, dict(feeds))
        except Exception as error:
            raise ModelError(f"ONNX Runtime cannot run the model: {error}") from error
        return outputs

    def bind(self, feeds: Mapping[str, Array]) -> Call:
        binding = self._session.io_binding()
        held = {name: np.ascontiguousarray(array) for name, array in feeds.items()}
        try:
            for name, array in held.items():
                binding.bind_cpu_input(name, array)
        except Exception as error:
            raise ModelError(f"ONNX Runtime refuses the inputs: {error}") from error
        for name in self._outputs:
            binding.bind_output(name)
        run = self._session.run_with_iobinding

        def call(held: Mapping[str, Array] = held) -> None:  # the binding points into the arrays
            run(binding)

        return call


def _options(library: Any, settings: Mapping[str, Any]) -> Any:
    options = library.SessionOptions()
    options.log_severity_level = 3
    for name, value in settings.items():
        if name in _DIRECT:
            expected = _DIRECT[name]
            if type(value) is not expected or (isinstance(value, int) and value < 0):
                raise ConfigError(f"onnxruntime setting {name!r} is {value!r}; expected {_KINDS[expected]}")
            if isinstance(value, int) and expected is int:
                check_threads(name, value)
            setattr(options, name, value)
        elif name == "execution_mode":
            options.execution_mode = getattr(library.ExecutionMode, _choice(name, value, _MODES))
        elif name == "graph_optimization_level":
            options.graph_optimization_level = getattr(
                library.GraphOptimizationLevel, _choice(name, value, _LEVELS)
            )
        elif name == "allow_spinning":
            if type(value) is not bool:
                raise ConfigError(f"onnxruntime setting {name!r} is {value!r}; expected true or false")
            for pool in ("intra_op", "inter_op"):
                options.add_session_config_entry(f"session.{pool}.allow_spinning", str(int(value)))
        elif name == "config":
            _entries(options, value)
        else:
            near = get_close_matches(name, _NAMES, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"allowed: {', '.join(_NAMES)}"
            raise ConfigError(f"onnxruntime has no setting {name!r}; {hint}")
    return options


_KINDS = {int: "a whole number, not negative", bool: "true or false"}


def _choice(name: str, value: Any, choices: Mapping[str, str]) -> str:
    if not isinstance(value, str) or value not in choices:
        raise ConfigError(f"onnxruntime setting {name!r} is {value!r}; expected one of {', '.join(choices)}")
    return choices[value]


def _entries(options: Any, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise ConfigError(f"onnxruntime setting 'config' is {value!r}; expected a mapping of entry to text")
    for key, text in value.items():
        if not isinstance(text, str):
            raise ConfigError(f"onnxruntime setting 'config': entry {key!r} is {text!r}; expected text")
        options.add_session_config_entry(key, text)
