"""What leaves a run: a bundle for each Pareto member (`bundle`, `verify`) and one report (`report`).

The modules are imported when they are first asked for: the report brings a drawing library along.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxnas.handoff import bundle, report, verify

__all__ = ["bundle", "report", "verify"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
