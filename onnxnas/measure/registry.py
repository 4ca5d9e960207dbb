"""From a runtime's name to the runtime. Names: 'onnxruntime', 'openvino', or 'module:name' of a third party's."""

from __future__ import annotations

from typing import Any

from onnxnas.errors import ConfigError
from onnxnas.measure.runtime import Runtime, Target
from onnxnas.plugins import is_reference, load_object

_BUILT_IN = {
    "onnxruntime": "onnxnas.measure.onnxruntime_backend:OnnxRuntime",
    "openvino": "onnxnas.measure.openvino_backend:OpenVino",
}
_METHODS = ("version", "defaults", "knobs", "load")


def runtime_names() -> tuple[str, ...]:
    """The runtimes that come with the package."""
    return tuple(_BUILT_IN)


def get_runtime(name: str) -> Runtime:
    """The runtime called `name`. Raises `ConfigError` when there is none or it lacks a method."""
    spec = _BUILT_IN.get(name, name)
    if not is_reference(spec):
        known = ", ".join(_BUILT_IN)
        raise ConfigError(f"runtime {name!r} is not known; use one of {known}, or module:name")
    try:
        runtime = load_object(spec, what="runtime")()
    except TypeError as error:
        raise ConfigError(f"runtime {name!r} cannot be made without arguments: {error}") from error
    missing = [method for method in _METHODS if not callable(getattr(runtime, method, None))]
    if missing:
        raise ConfigError(f"runtime {name!r} has no method {missing[0]!r}; see onnxnas.measure.Runtime")
    return runtime  # type: ignore[no-any-return]


def resolve_settings(target: Target, runtime: Runtime | None = None) -> dict[str, Any]:
    """The complete runtime settings of a target: the runtime's defaults, overlaid with the target's own."""
    runtime = runtime or get_runtime(target.runtime)
    return {**runtime.defaults(target.threads), **target.settings}
