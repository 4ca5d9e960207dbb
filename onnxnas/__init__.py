"""Neural architecture search on ONNX files, measured on the CPU that will serve them.

    onnxnas.inspect(model)               what can change in a model, and what cannot
    onnxnas.extract(model, subnet)       one sub-network as ONNX
    onnxnas.optimize(model, data, ...)   the whole line

Importing this package imports nothing heavy; each function imports what it needs when it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxnas.pipeline.api import extract, inspect, optimize

__all__ = ["__version__", "extract", "inspect", "optimize"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in ("extract", "inspect", "optimize"):
        from onnxnas.pipeline import api

        return getattr(api, name)
    raise AttributeError(f"module 'onnxnas' has no attribute '{name}'")
