"""How much a model may ask for. Anything beyond is refused before it costs memory or time."""

from __future__ import annotations

from dataclasses import dataclass

import onnx


@dataclass(frozen=True)
class Limits:
    """Caps on an untrusted model; raise one by giving `load` other limits.

    Sizes are in bytes, times in seconds. `memory` is the address space of the child process that runs
    the native checker and the shape inference.
    """

    file_bytes: int = (1 << 31) - 1
    external_bytes: int = 64 << 30
    nodes: int = 200_000
    depth: int = 16
    rank: int = 32
    name_length: int = 4096
    oldest_opset: int = 7
    newest_opset: int = onnx.defs.onnx_opset_version()
    newest_ir: int = onnx.IR_VERSION
    seconds: float = 120.0
    memory: int = 8 << 30
