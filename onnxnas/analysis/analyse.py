"""The three analyses together."""

from __future__ import annotations

from dataclasses import dataclass

from onnxnas.analysis.bodies import find_bodies
from onnxnas.analysis.depth import find_blocks
from onnxnas.analysis.kernel import find_kernels
from onnxnas.analysis.width import UnitLabels, find_groups
from onnxnas.graph import Graph
from onnxnas.types import Block, Frozen, KernelChoice, WidthGroup


@dataclass(frozen=True, eq=False)
class Analysis:
    """What can change in a graph. `labels` says which unit every position of every labelled axis belongs to."""

    graph: Graph
    blocks: tuple[Block, ...]
    groups: tuple[WidthGroup, ...]
    kernels: tuple[KernelChoice, ...]
    frozen: tuple[Frozen, ...]
    labels: UnitLabels


def analyse(graph: Graph, *, smallest_kernel: int = 3) -> Analysis:
    """Find skippable blocks, width groups and elastic kernels. Linear in the size of the graph."""
    blocks, block_refusals = find_blocks(graph)
    groups, labels, width_refusals = find_groups(graph)
    kernels, kernel_refusals = find_kernels(graph, smallest=smallest_kernel)
    frozen = (*block_refusals, *width_refusals, *kernel_refusals, *find_bodies(graph))
    return Analysis(graph, blocks, groups, kernels, frozen, labels)
