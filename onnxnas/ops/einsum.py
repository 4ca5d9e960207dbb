"""Einsum: axes with one letter are the same channels; letters that are summed over go no further.

A letter that only a constant has, and that is kept, makes new channels. Operands that were reshaped carry
labels of several axes at once; of these the outermost that is kept stays elastic (heads, not head size).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxnas.ops.channels import Factor, Ids, at
from onnxnas.ops.registry import register
from onnxnas.ops.spec import BatchNorm, Flow, OpSpec, Shapes, TorchFunction
from onnxnas.types import Node, Shape

if TYPE_CHECKING:
    from torch import Tensor

_SPARE = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"  # for the axes of "..."


def letters(equation: str, shapes: Sequence[Shape]) -> tuple[list[str], str]:
    """A letter for every axis of the operands, and of the output. Raises ValueError for what is not described."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    spare = [c for c in _SPARE if c not in equation]
    dots = [len(shape) - len(term.replace("...", "")) for term, shape in zip(terms, shapes, strict=True)]
    most = "".join(spare[: max(dots, default=0)])
    full = [
        term.replace("...", most[len(most) - n :] if n else "") for term, n in zip(terms, dots, strict=True)
    ]
    if any(len(term) != len(set(term)) or len(term) != len(s) for term, s in zip(full, shapes, strict=True)):
        raise ValueError(f"equation {equation}")
    if not arrow:
        every = "".join(full)
        right = "..." + "".join(sorted(c for c in set(every) - set(most) if every.count(c) == 1))
    return full, right.replace("...", most)


def _flow(flow: Flow, node: Node) -> None:
    shapes = [flow.shape(x) for x in node.inputs]
    known = [s for s in shapes if s is not None]
    if len(known) != len(shapes):
        flow.freeze_all(node, "a shape is unknown")
        return
    terms, output = letters(str(node.attributes["equation"]), known)
    for name, term in zip(node.inputs, terms, strict=True):
        _apart(flow, node, name, term, output)
    lengths = {c: max(s[t.index(c)] for t, s in zip(terms, known, strict=True) if c in t) for c in output}
    result = []
    for letter in dict.fromkeys("".join(terms)):
        meeting = [(x, t.index(letter)) for x, t in zip(node.inputs, terms, strict=True) if letter in t]
        ids = _met(flow, node, meeting, lengths.get(letter, 0))
        if ids is not None and letter in output:
            result.append(Factor((output.index(letter),), ids))
    flow.set(node.outputs[0], result)


def _apart(flow: Flow, node: Node, name: str, term: str, output: str) -> None:
    """Let every factor of an activation depend on one axis."""
    layout = []
    for factor in flow.layout(name):
        if len(factor.axes) > 1:
            kept = [a for a in factor.axes if term[a] in output]
            factor = flow.labels.collapse(factor, (kept or factor.axes)[0], node.name)
        layout.append(factor)
    if layout:
        flow.layouts[name] = tuple(layout)


def _met(flow: Flow, node: Node, meeting: Sequence[tuple[str, int]], made: int) -> Ids | None:
    """The ids of one letter, joined over the (operand, axis) that have it; `made`: its length if it is kept."""
    ids: Ids | None = None
    fixed = False
    constants = [(x, axis) for x, axis in meeting if flow.is_constant(x)]
    for x, axis in meeting:
        factor = None if flow.is_constant(x) else at(flow.layout(x), axis)
        if factor is None:
            fixed = fixed or not flow.is_constant(x)
        elif ids is None:
            ids = factor.ids
        else:
            flow.labels.join(ids, factor.ids, node.name)
    if ids is not None and fixed:
        flow.labels.freeze(ids, node.name, "meets a tensor whose channels cannot change")
        return None
    if ids is None and not fixed and made > 1 and len(constants) == 1:
        ids = flow.labels.fresh(made)
    if ids is not None:
        for x, axis in constants:
            flow.bind(x, axis, ids, node)
    return ids


def _macs(node: Node, shapes: Shapes) -> int:
    known = [s for s in map(shapes, node.inputs) if s is not None]
    if len(known) < max(2, len(node.inputs)):
        return 0
    try:
        terms, _ = letters(str(node.attributes["equation"]), known)
    except ValueError:
        return 0
    lengths: dict[str, int] = {}
    for term, shape in zip(terms, known, strict=True):
        for letter, length in zip(term, shape, strict=True):
            lengths[letter] = max(lengths.get(letter, 1), length)
    return int(np.prod(list(lengths.values()), dtype=np.int64))


def _torch(node: Node, constants: Mapping[int, NDArray[Any]], mode: BatchNorm) -> TorchFunction:
    import torch

    equation = str(node.attributes["equation"])
    fixed = {i: torch.tensor(np.array(v)) for i, v in constants.items()}

    def run(inputs: Sequence[Any]) -> Tensor:
        given = [fixed[i] if x is None else x for i, x in enumerate(inputs)]
        return torch.as_tensor(torch.einsum(equation, *given))

    return run


register(OpSpec("Einsum", _flow, _torch, macs=_macs, since=12))
