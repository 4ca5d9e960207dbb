"""If and Loop. Their bodies run node by node; nothing that a body reads changes its width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxnas.ops.registry import register, torch_function
from onnxnas.ops.spec import BatchNorm, OpSpec, TorchFunction, opaque
from onnxnas.types import Node, Subgraph

if TYPE_CHECKING:
    from torch import Tensor

Values = dict[str, Any]


class _Body:
    """A body as a function of the outer values that it captures and of its own inputs."""

    def __init__(self, body: Subgraph, known: Mapping[str, NDArray[Any]], mode: BatchNorm) -> None:
        import torch

        self._inputs, self._outputs = body.inputs, body.outputs
        self._own = {name: torch.from_numpy(np.array(value)) for name, value in body.initializers.items()}
        constants = {**known, **body.initializers}
        fixed = {name: value for name, value in constants.items() if value.dtype.kind != "f"}
        self._steps = [(node, torch_function(node, _known(node.reads, fixed), mode)) for node in body.nodes]

    def __call__(self, outer: Mapping[str, Any], given: Sequence[Any] = ()) -> list[Any]:
        import torch

        device = next((v.device for v in outer.values() if isinstance(v, torch.Tensor)), None)
        values: Values = {**outer, **{name: value.to(device) for name, value in self._own.items()}}
        values.update(zip(self._inputs, given, strict=True))
        for node, function in self._steps:
            result = function([values[name] if name else None for name in node.reads])
            parts = result if isinstance(result, (tuple, list)) else (result,)
            values.update((name, part) for name, part in zip(node.outputs, parts, strict=False) if name)
        return [values[name] for name in self._outputs]


def _known(reads: Sequence[str], values: Mapping[str, NDArray[Any]]) -> dict[int, NDArray[Any]]:
    """Those of the values that are read, by position."""
    return {place: values[name] for place, name in enumerate(reads) if name in values}


def _named(node: Node, constants: Mapping[int, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name: constants[place] for place, name in enumerate(node.reads) if place in constants}


def _if(node: Node, constants: Mapping[int, NDArray[Any]], mode: BatchNorm) -> TorchFunction:
    known = _named(node, constants)
    chosen = {
        True: _Body(node.attributes["then_branch"], known, mode),
        False: _Body(node.attributes["else_branch"], known, mode),
    }

    def run(inputs: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(chosen[bool(inputs[0])](dict(zip(node.reads, inputs, strict=True))))

    return run


def _loop(node: Node, constants: Mapping[int, NDArray[Any]], mode: BatchNorm) -> TorchFunction:
    body = _Body(node.attributes["body"], _named(node, constants), mode)
    carried = len(node.inputs) - 2

    def run(inputs: Sequence[Any]) -> tuple[Any, ...]:
        import torch

        outer = dict(zip(node.reads, inputs, strict=True))
        most = None if inputs[0] is None else int(inputs[0])
        going = torch.tensor(True) if inputs[1] is None else inputs[1]
        state = list(inputs[2 : 2 + carried])
        rows: list[list[Tensor]] = []
        turn = 0
        while bool(going) and (most is None or turn < most):
            going, *made = body(outer, [torch.tensor(turn), going, *state])
            state, row = made[:carried], made[carried:]
            rows.append(row)
            turn += 1
        scanned = [torch.stack(column) for column in zip(*rows, strict=True)]
        nothing = [torch.zeros(0)] * (len(node.outputs) - carried - len(scanned))
        return (*state, *scanned, *nothing)

    return run


register(OpSpec("If", opaque, _if), OpSpec("Loop", opaque, _loop))
