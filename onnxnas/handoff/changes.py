"""What a sub-network kept of each part, from the text of `space.json` and of a sub-network file.

Of a width group with `size` units that keeps w, the fraction w / size stays. A group whose producers all lie
in skipped blocks is gone whatever its width says; the same holds for a kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onnxnas.precision import EVERY
from onnxnas.types import Subnet


@dataclass(frozen=True)
class BlockChange:
    """A block that could be skipped: was it?"""

    id: str
    name: str
    kind: str
    chain: int
    skipped: bool


@dataclass(frozen=True)
class WidthChange:
    """A width group: `kept` units of `size`; `gone` if nothing is left that makes them."""

    id: str
    name: str
    size: int
    kept: int
    gone: bool

    @property
    def fraction(self) -> float:
        return 0.0 if self.gone else self.kept / self.size if self.size else 1.0


@dataclass(frozen=True)
class KernelChange:
    """A convolution whose kernel could shrink from `size` to `kept`."""

    id: str
    name: str
    size: tuple[int, ...]
    kept: tuple[int, ...]
    gone: bool


@dataclass(frozen=True)
class Changes:
    """Every part that could change, in the order of the search space."""

    blocks: tuple[BlockChange, ...]
    widths: tuple[WidthChange, ...]
    kernels: tuple[KernelChange, ...]

    @property
    def skipped(self) -> tuple[BlockChange, ...]:
        return tuple(block for block in self.blocks if block.skipped)

    @property
    def narrowed(self) -> tuple[WidthChange, ...]:
        return tuple(group for group in self.widths if not group.gone and group.kept != group.size)

    @property
    def cropped(self) -> tuple[KernelChange, ...]:
        return tuple(kernel for kernel in self.kernels if not kernel.gone and kernel.kept != kernel.size)


def numbers(subnet: Subnet) -> str:
    """What numbers a sub-network has where these are not the original's, in words; '' where they are."""
    every = subnet.precision.get(EVERY)
    named = [f"{kind} in {node}" for node, kind in sorted(subnet.precision.items()) if node != EVERY]
    return ", ".join([*([every] if every else []), *named])


def changes(space: Mapping[str, Any], subnet: Subnet) -> Changes:
    """Say what `subnet` keeps of the search space whose `to_json()` is `space`; missing parts are empty."""
    blocks: list[BlockChange] = []
    lost: set[str] = set()
    for block in space.get("blocks", ()):
        skipped = str(block["id"]) in subnet.skip
        if skipped:
            lost.update(block.get("nodes", ()))
        name = str(block.get("name") or "") or _region(block)
        blocks.append(
            BlockChange(
                str(block["id"]), name, str(block.get("kind", "")), int(block.get("chain", 0)), skipped
            )
        )
    widths = []
    for group in space.get("groups", ()):
        producers = list(group.get("producers", ()))
        size = int(group["size"])
        widths.append(
            WidthChange(
                id=str(group["id"]),
                name=str(group.get("name") or "") or ", ".join(producers[:2]),
                size=size,
                kept=int(subnet.width.get(str(group["id"]), size)),
                gone=bool(producers) and lost.issuperset(producers),
            )
        )
    kernels = []
    for kernel in space.get("kernels", ()):
        size2 = tuple(int(x) for x in kernel["size"])
        kernels.append(
            KernelChange(
                id=str(kernel["id"]),
                name=str(kernel["node"]),
                size=size2,
                kept=tuple(subnet.kernel.get(str(kernel["id"]), size2)),
                gone=kernel["node"] in lost,
            )
        )
    return Changes(tuple(blocks), tuple(widths), tuple(kernels))


def _region(block: Mapping[str, Any]) -> str:
    nodes = list(block.get("nodes", ()))
    return f"{nodes[0]} … {nodes[-1]}" if nodes else str(block["id"])
