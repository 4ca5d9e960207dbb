"""Elastic kernels: convolutions whose odd, square kernel can be cropped to a smaller one.

The padding shrinks with the kernel, so that the output keeps its size (Cai et al. 2020, Once-for-All,
section 3.2).
"""

from __future__ import annotations

from onnxnas.graph import Graph
from onnxnas.types import Frozen, KernelChoice, Node


def find_kernels(graph: Graph, *, smallest: int = 3) -> tuple[tuple[KernelChoice, ...], tuple[Frozen, ...]]:
    """Convolutions with a kernel larger than `smallest` that can shrink, and those that cannot with the reason."""
    kernels: list[KernelChoice] = []
    refusals: list[Frozen] = []
    for node in graph.nodes:
        if node.op_type != "Conv" or node.inputs[1] not in graph.initializers:
            continue
        size = tuple(int(k) for k in graph.tensors[node.inputs[1]].shape or ())[2:]
        if not size or max(size) <= smallest:
            continue
        reason = _refusal(graph, node, size, smallest)
        if reason:
            refusals.append(Frozen(node.name, "kernel", reason))
            continue
        choices = tuple((k,) * len(size) for k in range(size[0], smallest - 1, -2))
        kernels.append(KernelChoice(f"k{len(kernels)}", node.name, size, choices))
    return tuple(kernels), tuple(refusals)


def _refusal(graph: Graph, node: Node, size: tuple[int, ...], smallest: int) -> str:
    """Why the kernel cannot shrink; empty when it can."""
    if len(set(size)) > 1 or size[0] % 2 == 0:
        return f"kernel {'x'.join(map(str, size))} is not odd and square"
    if len(graph.consumers(node.inputs[1])) > 1:
        return "its weight is shared with another node"
    auto = node.attributes.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        return ""
    pads = node.attributes.get("pads", (0,) * (2 * len(size))) if auto == "NOTSET" else (0,)
    dilations = node.attributes.get("dilations", (1,) * len(size))
    needed = (size[0] - smallest) // 2 * max(dilations)
    if min(pads) < needed:
        return f"padding {min(pads)} is less than the {needed} that a crop to {smallest} takes away"
    return ""
