"""LSTM and GRU. Their weights stay as they are; what feeds them and reads them does too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from onnxnas.ops.registry import register
from onnxnas.ops.spec import BatchNorm, OpSpec, TorchFunction, opaque
from onnxnas.types import Node

if TYPE_CHECKING:
    from torch import Tensor

# ONNX orders the gates i, o, f, c (LSTM) and z, r, h (GRU)
_GATES = {"LSTM": 4, "GRU": 3}


def _cell(kind: str, x: Tensor, h: Tensor, c: Tensor, w: Tensor, r: Tensor, b: Tensor, before: bool) -> Any:
    """One step. x: B x 4H or B x 3H, already multiplied by w and with its bias; h, c: B x H."""
    import torch

    if kind == "LSTM":
        i, o, f, g = (x + h @ r.t() + b).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c
    size = h.shape[-1]
    zr = x[..., : 2 * size] + h @ r[: 2 * size].t() + b[: 2 * size]
    z, reset = torch.sigmoid(zr).chunk(2, -1)
    if before:
        n = torch.tanh(x[..., 2 * size :] + reset * (h @ r[2 * size :].t() + b[2 * size :]))
    else:
        n = torch.tanh(x[..., 2 * size :] + (reset * h) @ r[2 * size :].t() + b[2 * size :])
    return (1 - z) * n + z * h, c


def _torch(node: Node, constants: Mapping[int, NDArray[Any]], mode: BatchNorm) -> TorchFunction:
    import torch

    kind, gates = node.op_type, _GATES[node.op_type]
    direction = str(node.attributes.get("direction", "forward"))
    before = bool(node.attributes.get("linear_before_reset", 0))
    batch_first = bool(node.attributes.get("layout", 0))

    def run(inputs: Sequence[Any]) -> tuple[Tensor, ...]:
        given = [*inputs, *[None] * (8 - len(inputs))]
        x, w, r, b, _, h0, c0 = given[:7]
        x = x.transpose(0, 1) if batch_first else x
        steps, batch, size = x.shape[0], x.shape[1], r.shape[-1]
        outputs, last_h, last_c = [], [], []
        for d in range(w.shape[0]):
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
                h, c = _cell(kind, projected[t], h, c, w[d], r[d], rb, before)
                row[t] = h
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


register(*(OpSpec(name, opaque, _torch) for name in _GATES))
