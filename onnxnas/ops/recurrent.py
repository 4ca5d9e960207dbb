"""RNN, LSTM and GRU. A hidden unit has one row in each gate, in both directions, and can go with all of them.

The input's channels are the columns of the weight. Steps and samples cannot change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxnas.errors import ModelError
from onnxnas.ops.channels import Factor, Ids
from onnxnas.ops.registry import register
from onnxnas.ops.spec import BatchNorm, Flow, Kept, OpSpec, Shapes, TorchFunction
from onnxnas.types import Node
from rewriters.edits import Edit, SetAttribute

if TYPE_CHECKING:
    from torch import Tensor

# ONNX orders the gates i, o, f, c (LSTM) and z, r, h (GRU)
_GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}
_FUNCTIONS = {"RNN": ("Tanh",), "LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh")}

# x (B x gates*H, multiplied by the weight, with its bias), h, c (B x H), weight, bias -> new h, c
Cell = Callable[["Tensor", "Tensor", "Tensor", "Tensor", "Tensor"], tuple["Tensor", "Tensor"]]

_BIAS, _STATES, _PEEPHOLES = 3, (5, 6), 7  # inputs


def _flow(flow: Flow, node: Node) -> None:
    x, weight, recurrent = node.inputs[:3]
    shape = flow.shape(recurrent)
    given = [(i, name) for i, name in enumerate(node.inputs) if i in (1, 2, _BIAS, _PEEPHOLES) and name]
    if shape is None or not all(flow.is_constant(name) for _, name in given):
        flow.freeze_all(node, "a weight is not a constant")
        return
    steps = [a for f in flow.layout(x) for a in f.axes if a != 2]
    flow.layouts[x] = flow.static(flow.layout(x), steps, node, "it is a step or a sample")
    ids = flow.single(x, 2, node)
    if ids is not None:
        flow.bind(weight, 2, ids, node)
    hidden = flow.labels.fresh(shape[2])
    flow.bind(recurrent, 2, hidden, node)
    for index, name in given:
        rows = 3 if index == _PEEPHOLES else _GATES[node.op_type] * (2 if index == _BIAS else 1)
        flow.bind(name, 1, np.tile(hidden, rows), node)
    for index in _STATES:
        if index < len(node.inputs) and node.inputs[index]:
            _state(flow, node, node.inputs[index], hidden)
    for output, rank in zip(node.outputs, (4, 3, 3), strict=False):
        flow.set(output, [Factor((rank - 1,), hidden)])


def _state(flow: Flow, node: Node, state: str, hidden: Ids) -> None:
    """The first state has the hidden units on its last axis."""
    if flow.is_constant(state):
        flow.bind(state, 2, hidden, node)
        return
    others = [a for f in flow.layout(state) for a in f.axes if a != 2]
    flow.layouts[state] = flow.static(flow.layout(state), others, node, "it is a direction or a sample")
    ids = flow.single(state, 2, node)
    if ids is None:
        flow.labels.freeze(hidden, node.name, f"starts from '{state}', which cannot change")
    else:
        flow.labels.join(hidden, ids, node.name)


def _edits(node: Node, kept: Kept) -> list[Edit]:
    mask = kept.mask(node.inputs[2], 2)
    return [] if mask is None else [SetAttribute(node.name, "hidden_size", int(mask.sum()))]


def _macs(node: Node, shapes: Shapes) -> int:
    x, weight, recurrent = (shapes(name) for name in node.inputs[:3])
    if x is None or weight is None or recurrent is None:
        return 0
    return x[0] * x[1] * (int(np.prod(weight)) + int(np.prod(recurrent)))


def _lstm(x: Tensor, h: Tensor, c: Tensor, r: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    import torch

    i, o, f, g = (x + h @ r.t() + b).chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def _gru(before: bool) -> Cell:
    """`before`: the reset gate is applied to what the recurrent weight has made of h, not to h."""
    import torch

    def step(x: Tensor, h: Tensor, c: Tensor, r: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        size = h.shape[-1]
        zr = x[..., : 2 * size] + h @ r[: 2 * size].t() + b[: 2 * size]
        z, reset = torch.sigmoid(zr).chunk(2, -1)
        if before:
            n = torch.tanh(x[..., 2 * size :] + reset * (h @ r[2 * size :].t() + b[2 * size :]))
        else:
            n = torch.tanh(x[..., 2 * size :] + (reset * h) @ r[2 * size :].t() + b[2 * size :])
        return (1 - z) * n + z * h, c

    return step


def _rnn(activation: Callable[[Tensor], Tensor]) -> Cell:
    return lambda x, h, c, r, b: (activation(x + h @ r.t() + b), c)


def _cells(node: Node, directions: int) -> list[Cell]:
    """The step of each direction. Raises ModelError for settings that no step here has."""
    import torch

    kind = node.op_type
    usual = _FUNCTIONS[kind] * directions
    given = tuple(str(a) for a in node.attributes.get("activations", usual)) or usual
    unknown = [name for name in ("clip", "input_forget") if node.attributes.get(name, 0)]
    if len(node.inputs) > 7 and node.inputs[7]:
        unknown.append("peepholes")
    if kind == "RNN":
        functions = {"tanh": torch.tanh, "relu": torch.relu, "sigmoid": torch.sigmoid}
        unknown += [a for a in given if a.lower() not in functions]
    elif [a.lower() for a in given] != [a.lower() for a in usual]:
        unknown.append(f"activations {', '.join(given)}")
    if unknown:
        raise ModelError(
            f"node {node.name!r}: {kind} with {', '.join(unknown)} has no torch function; "
            "the model can be pruned and measured, but not trained"
        )
    if kind == "RNN":
        return [_rnn(functions[a.lower()]) for a in given]
    cell = _lstm if kind == "LSTM" else _gru(bool(node.attributes.get("linear_before_reset", 0)))
    return [cell] * directions


def _torch(node: Node, constants: Mapping[int, NDArray[Any]], mode: BatchNorm) -> TorchFunction:
    import torch

    gates = _GATES[node.op_type]
    direction = str(node.attributes.get("direction", "forward"))
    batch_first = bool(node.attributes.get("layout", 0))
    cells = _cells(node, 2 if direction == "bidirectional" else 1)

    def run(inputs: Sequence[Any]) -> tuple[Tensor, ...]:
        given = [*inputs, *[None] * (8 - len(inputs))]
        x, w, r, b, lengths, h0, c0 = given[:7]
        x = x.transpose(0, 1) if batch_first else x
        steps, batch, size = x.shape[0], x.shape[1], r.shape[-1]
        alive = _alive(lengths, x)
        outputs, last_h, last_c = [], [], []
        for d, cell in enumerate(cells):
            wb, rb = (
                (b[d, : gates * size], b[d, gates * size :])
                if b is not None
                else (None, x.new_zeros(gates * size))
            )
            projected = torch.nn.functional.linear(x, w[d], wb)
            h = x.new_zeros(batch, size) if h0 is None else (h0[:, d] if batch_first else h0[d])
            c = x.new_zeros(batch, size) if c0 is None else (c0[:, d] if batch_first else c0[d])
            backward = direction == "reverse" or d == 1
            row: list[Tensor] = [h] * steps
            for t in reversed(range(steps)) if backward else range(steps):
                new_h, new_c = cell(projected[t], h, c, r[d], rb)
                if alive is None:
                    row[t] = h = new_h
                    c = new_c
                else:
                    row[t] = torch.where(alive[t], new_h, torch.zeros_like(new_h))
                    h, c = torch.where(alive[t], new_h, h), torch.where(alive[t], new_c, c)
            outputs.append(torch.stack(row))
            last_h.append(h)
            last_c.append(c)
        y = torch.stack(outputs, 1)
        finals = [torch.stack(last_h), torch.stack(last_c)]
        if batch_first:
            y = y.permute(2, 0, 1, 3)
            finals = [f.transpose(0, 1) for f in finals]
        return (y, *finals[: max(len(node.outputs) - 1, 0)])

    return run


def _alive(lengths: Tensor | None, x: Tensor) -> Tensor | None:
    """True while a sequence lasts, steps x batch x 1; behind its end the state stays and the output is 0."""
    import torch

    if lengths is None:
        return None
    return (torch.arange(x.shape[0], device=x.device)[:, None] < lengths[None]).unsqueeze(-1)


register(*(OpSpec(name, _flow, _torch, _edits, _macs) for name in _GATES))
