"""OpenVINO, CPU device, as a `Runtime`."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import numpy as np

from onnxnas.errors import ConfigError, EnvironmentProblem, ModelError
from onnxnas.measure.runtime import Array, Call, Model, Session, check_threads


class OpenVino:
    """OpenVINO on the CPU. Settings are the device's own writable properties, under their own names.

    By default inference precision is f32 (OpenVINO would choose bf16 where the CPU has it, and change
    the outputs), the hint is latency, there is one stream, and pinning is off because the measuring
    process is pinned already.
    """

    name = "openvino"

    def version(self) -> str:
        try:
            return importlib.metadata.version("openvino")
        except importlib.metadata.PackageNotFoundError:
            raise EnvironmentProblem("openvino is not installed; pip install openvino") from None

    def defaults(self, threads: int) -> dict[str, Any]:
        return {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,
        }

    def knobs(self, threads: int) -> Mapping[str, tuple[Any, ...]]:
        return {
            "INFERENCE_NUM_THREADS": (threads, *(n for n in range(1, threads))),
            "PERFORMANCE_HINT": ("LATENCY", "THROUGHPUT"),
            "NUM_STREAMS": tuple(range(1, threads + 1)),
            "ENABLE_CPU_PINNING": (False, True),
            "ENABLE_HYPER_THREADING": (False, True),
            "CPU_DENORMALS_OPTIMIZATION": (False, True),
        }

    def load(self, model: Model, settings: Mapping[str, Any]) -> Session:
        try:
            import openvino
        except ImportError as error:
            raise EnvironmentProblem(f"openvino cannot be imported: {error}; pip install openvino") from error
        core = openvino.Core()
        _apply(core, settings)
        if not model:
            raise ModelError("OpenVINO cannot load the model: it is empty")
        try:
            compiled = core.compile_model(core.read_model(model), "CPU")
        except (RuntimeError, TypeError) as error:
            raise ModelError(f"OpenVINO cannot load the model: {_first_lines(error)}") from error
        return _Session(compiled, openvino.Tensor)


class _Session(Session):
    def __init__(self, compiled: Any, tensor: Any) -> None:
        self._request = compiled.create_infer_request()
        self._inputs = [(frozenset(port.get_names()), port) for port in compiled.inputs]
        self._count = len(compiled.outputs)
        self._tensor = tensor
        self._held: list[Array] = []  # the request points into these

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        self._set(feeds)
        try:
            self._request.infer(None, share_inputs=True, share_outputs=True)
            return [self._request.get_output_tensor(i).data.copy() for i in range(self._count)]
        except RuntimeError as error:
            raise ModelError(f"OpenVINO cannot run the model: {_first_lines(error)}") from error

    def bind(self, feeds: Mapping[str, Array]) -> Call:
        self._set(feeds)
        infer = self._request.infer
        return lambda: infer(None, share_inputs=True, share_outputs=True)

    def _set(self, feeds: Mapping[str, Array]) -> None:
        given, self._held = dict(feeds), []
        for names, port in self._inputs:
            name = next((name for name in given if name in names), None)
            if name is None:
                raise ModelError(
                    f"OpenVINO: input {sorted(names)} has no array among the feeds {sorted(feeds)}"
                )
            array = np.ascontiguousarray(given.pop(name))
            self._held.append(array)
            try:
                if port.get_element_type().to_dtype() != array.dtype:
                    raise ModelError(
                        f"OpenVINO: input {name!r} got {array.dtype}; expected {port.get_element_type().to_dtype()}"
                    )
                self._request.set_tensor(port, self._tensor(array, shared_memory=True))
            except RuntimeError as error:
                raise ModelError(f"OpenVINO: input {name!r} is refused: {_first_lines(error)}") from error
        if given:
            raise ModelError(f"OpenVINO: the model has no input {sorted(given)[0]!r}")


def _apply(core: Any, settings: Mapping[str, Any]) -> None:
    supported = core.get_property("CPU", "SUPPORTED_PROPERTIES")
    writable = [name for name, access in supported.items() if access != "RO"]
    for name, value in settings.items():
        if name not in writable:
            near = get_close_matches(name, writable, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"allowed: {', '.join(sorted(writable))}"
            raise ConfigError(f"openvino has no setting {name!r}; {hint}")
        if name == "INFERENCE_NUM_THREADS" and isinstance(value, int):
            check_threads(name, value)
        try:
            core.set_property("CPU", {name: value})
        except (RuntimeError, TypeError) as error:
            raise ConfigError(f"openvino setting {name!r} is {value!r}: {_first_lines(error)}") from error


def _first_lines(error: Exception) -> str:
    """OpenVINO's messages begin with places in its sources; the last lines say what is wrong."""
    lines = [line.strip() for line in str(error).splitlines()]
    useful = [line for line in lines if line and not line.startswith("Exception from src")]
    return " ".join(useful)[:500] or type(error).__name__
