"""Recurrent layers, forwards, backwards and both ways, for whole sequences and for those that end early."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from onnxnas.testing.builder import Builder
from onnxnas.testing.operators import OperatorCase
from tests.ops.networks import tokens

GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}


def last_step(b: Builder, x: str, axis: int) -> str:
    """A length from 1 to 5 for each sample: up to the largest mean over the channels."""
    mean = b.add("ReduceMean", x, axes=[2], keepdims=0, shape=(5,))
    return b.add("Add", b.add("ArgMax", mean, axis=axis, keepdims=0, shape=()), b.weight("one", np.array(1)))


def recurrent(
    op: str, direction: str, *, lengths: bool = False, state: bool = False, **attributes: Any
) -> OperatorCase:
    def middle(b: Builder, x: str) -> str:
        gates, ways, size = GATES[op], (2 if direction == "bidirectional" else 1), 4
        weights = [b.weight("w", b.normal(ways, gates * size, 8, scale=0.3)),
                   b.weight("r", b.normal(ways, gates * size, size, scale=0.3)),
                   b.weight("b", b.normal(ways, 2 * gates * size, scale=0.3))]  # fmt: skip
        x = b.add("Transpose", x, perm=[1, 0, 2], shape=(5, 8))
        if lengths:
            weights.append(b.add("Cast", last_step(b, x, 0), to=TensorProto.INT32, shape=()))
        if state:
            mean = b.add("ReduceMean", x, axes=[0], shape=(1, 8))
            weights += ["", b.linear(mean, size)]
        settings = {"hidden_size": size, "direction": direction, **attributes}
        y = b.add(op, x, *weights, outputs=2, shape=(ways, 5, size), **settings)
        y = b.add("Add", y, y.replace("_output_0", "_output_1"))
        y = b.add("Transpose", y, perm=[2, 0, 1, 3], shape=(5, ways, size))
        return b.reshape(y, (0, 5, ways * size), (5, ways * size))

    return OperatorCase(f"{op} {direction}", tokens(middle), groups=2)


CASES: list[OperatorCase] = [
    *(recurrent("LSTM", d) for d in ("forward", "reverse", "bidirectional")),
    recurrent("GRU", "forward", linear_before_reset=1),
    recurrent("GRU", "bidirectional"),
    recurrent("RNN", "forward"),
    recurrent("RNN", "bidirectional", activations=["Relu", "Tanh"]),
    *(recurrent(op, "bidirectional", lengths=True) for op in GATES),
    *(recurrent(op, "forward", state=True) for op in GATES),
]
