"""First states of zeros are left out of recurrent layers; others stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from rewriters import canonicalise
from tests.rewriters.build import Array, close, floats, model, run

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def states(value: float) -> list[onnx.NodeProto]:
    """What exporters write for `value` in two layers of states, of the batch that comes: the first layer's half."""
    fill = helper.make_tensor("value", onnx.TensorProto.FLOAT, [1], [value])
    return [
        helper.make_node("Shape", ["x"], ["s"], start=1, end=2),
        helper.make_node("Concat", ["two", "s", "size"], ["t"], axis=0),
        helper.make_node("ConstantOfShape", ["t"], ["all"], value=fill),
        helper.make_node("Slice", ["all", "from", "to", "from"], ["h"]),
    ]


def recurrent(op: str, before: list[onnx.NodeProto], **weights: Array) -> onnx.ModelProto:
    rng, gates = np.random.default_rng(0), GATES[op]
    inputs = ["x", "w", "r", "", "", "h", *(["h"] if op == "LSTM" else [])]
    known: dict[str, Any] = {
        "w": floats(rng, 1, gates * 3, 4),
        "r": floats(rng, 1, gates * 3, 3),
        "two": np.array([2]),
        "size": np.array([3]),
        "from": np.array([0]),
        "to": np.array([1]),
    }
    return model([*before, helper.make_node(op, inputs, ["y"], hidden_size=3)], {"x": [5, "N", 4]}, ["y"],
                 {**known, **weights})  # fmt: skip


@pytest.mark.parametrize("op", list(GATES))
def test_computed_zeros_are_left_out(rng: np.random.Generator, op: str) -> None:
    full = recurrent(op, states(0.0))
    out = canonicalise(full).model
    assert [list(n.input) for n in out.graph.node] == [["x", "w", "r"]]
    x = {"x": floats(rng, 5, 2, 4)}
    close(run(out, x), run(full, x), 0)


def test_written_zeros_are_left_out_and_the_batch_is_free(rng: np.random.Generator) -> None:
    full = recurrent("GRU", [], h=np.zeros((1, 1, 3), np.float32))
    out = canonicalise(full).model
    assert run(out, {"x": floats(rng, 5, 2, 4)})[0].shape == (5, 1, 2, 3)
    x = {"x": floats(rng, 5, 1, 4)}
    close(run(out, x), run(full, x), 0)


def test_other_states_stay(rng: np.random.Generator) -> None:
    full = recurrent("LSTM", states(0.5))
    out = canonicalise(full).model
    assert list(out.graph.node[-1].input)[5:] == ["h", "h"]
    x = {"x": floats(rng, 5, 2, 4)}
    close(run(out, x), run(full, x), 0)
