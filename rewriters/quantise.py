"""Numbers of 8 bits in a graph of floats: QuantizeLinear and DequantizeLinear around what shall compute with them.

    activation   x -> QuantizeLinear -> uint8 -> DequantizeLinear -> reader       (`Round`)
    constant                             int8 -> DequantizeLinear -> reader       (`StoreIntegers`)

As it stands the model computes in floats what integers would give; a runtime that knows the pattern takes the floats
away and computes with the integers (ONNX Runtime: QLinearConv and so on; OpenVINO: low-precision transformations).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from rewriters.base import Refusal
from rewriters.edits import Round, StoreIntegers
from rewriters.surgery import Surgery

PER_AXIS = 13  # the opset from which there can be a scale for each position of an axis


def store_integers(surgery: Surgery, edits: Sequence[StoreIntegers]) -> list[str] | Refusal:
    """Replace constants. Refused: not a constant, integers of another shape, scales that do not fit, opset < 13."""
    shared: dict[tuple[str, bytes, bytes, int], Any] = {}
    done = []
    for edit in edits:
        node = surgery.node(edit.node)
        if node is None or not 0 <= edit.input < len(node.inputs):
            return Refusal(
                f"store integers: no single node '{edit.node}' with an input {edit.input}", edit.node
            )
        old, values = node.inputs[edit.input], np.asarray(edit.values)
        if not surgery.is_constant(old):
            return Refusal(
                f"store integers: '{old.name}' is not a constant with its values at hand", edit.node
            )
        shape, dtype = surgery.form(old)
        scale = np.asarray(edit.scale, dtype)
        if values.shape != shape:
            return Refusal(
                f"store integers: '{old.name}' has shape {shape}, got integers of {values.shape}", edit.node
            )
        if scale.ndim and (scale.ndim > 1 or scale.shape != shape[edit.axis : edit.axis + 1]):
            return Refusal(
                f"store integers: '{old.name}' has shape {shape}, got {scale.size} scales along axis {edit.axis}",
                edit.node,
            )
        if scale.ndim and surgery.opset < PER_AXIS:
            return Refusal(
                f"store integers: scales along an axis take opset {PER_AXIS}, the model has {surgery.opset}",
                edit.node,
            )
        key = (old.name, values.tobytes(), scale.tobytes(), edit.axis)
        if key not in shared:
            shared[key] = _dequantised(surgery, old.name or edit.node, values, scale, edit.axis)
        node.inputs[edit.input] = shared[key]
        done.append(f"stored input {edit.input} of {node.op} '{edit.node}' as {values.dtype}")
    return done


def _dequantised(surgery: Surgery, name: str, values: Any, scale: Any, axis: int) -> Any:
    """Integers and the node that makes floats of them."""
    stored = surgery.constant(f"{name}_integers", values)
    factor = surgery.constant(f"{name}_scale", scale)
    zero = surgery.constant(f"{name}_zero_point", np.zeros(scale.shape, values.dtype))
    back = gs.Variable(surgery.fresh(f"{name}_dequantized"))
    attributes = {"axis": axis} if scale.ndim else {}
    surgery.graph.nodes.append(
        gs.Node(
            "DequantizeLinear",
            surgery.fresh(f"{name}_DequantizeLinear"),
            attributes,
            [stored, factor, zero],
            [back],
        )
    )
    return back


def round_to_8_bits(surgery: Surgery, edits: Sequence[Round]) -> list[str] | Refusal:
    """Round activations. Refused: no such tensor or one that is constant, readers that do not read it, a bad scale.

    Where everybody is to read it rounded the rounded tensor has the name, and only a node's output can be so.
    """
    done = []
    for edit in edits:
        tensor = surgery.tensor(edit.tensor)
        if tensor is None or isinstance(tensor, gs.Constant):
            return Refusal(f"round: there is no activation '{edit.tensor}'", edit.tensor)
        culprit = tensor.inputs[0].name if tensor.inputs else edit.tensor
        if not (np.isfinite(edit.scale) and edit.scale > 0 and 0 <= edit.zero_point <= 255):
            return Refusal(
                f"round: '{edit.tensor}' cannot have scale {edit.scale} and zero point {edit.zero_point}",
                culprit,
            )
        if edit.readers is None:
            if not tensor.inputs:
                return Refusal(f"round: '{edit.tensor}' is an input; say who shall read it rounded", culprit)
            exact, rounded = gs.Variable(surgery.fresh(f"{edit.tensor}_exact"), dtype=tensor.dtype), tensor
            maker = tensor.inputs[0]
            maker.outputs = [exact if t is tensor else t for t in maker.outputs]
        else:
            exact, rounded = tensor, gs.Variable(surgery.fresh(f"{edit.tensor}_rounded"), dtype=tensor.dtype)
            for name in edit.readers:
                reader = surgery.node(name)
                if reader is None or not any(t is tensor for t in reader.inputs):
                    return Refusal(f"round: node '{name}' does not read '{edit.tensor}'", name)
                reader.inputs = [rounded if t is tensor else t for t in reader.inputs]
        integers = _insert(surgery, edit, exact, rounded)
        for name, axis, length in edit.apart:
            reader = surgery.node(name)
            if reader is None or not any(t is rounded for t in reader.inputs):
                return Refusal(f"round: node '{name}' does not read '{edit.tensor}'", name)
            if surgery.opset < PER_AXIS:
                return Refusal(
                    f"round: scales along an axis take opset {PER_AXIS}, the model has {surgery.opset}", name
                )
            own = _apart(surgery, edit, integers, axis, length)
            reader.inputs = [own if t is rounded else t for t in reader.inputs]
        whose = "everybody" if edit.readers is None else ", ".join(edit.readers)
        done.append(f"rounded '{edit.tensor}' for {whose}")
    return done


def _insert(surgery: Surgery, edit: Round, exact: Any, rounded: Any) -> Any:
    """The two nodes between `exact` and `rounded`; the integers between them."""
    kind = np.float32 if exact.dtype is None else np.dtype(exact.dtype)
    settings = [
        surgery.constant(f"{edit.tensor}_scale", np.array(edit.scale, kind)),
        surgery.constant(f"{edit.tensor}_zero_point", np.array(edit.zero_point, np.uint8)),
    ]
    integers = gs.Variable(surgery.fresh(f"{edit.tensor}_integers"), dtype=np.uint8)
    for op, source, target in (
        ("QuantizeLinear", exact, integers),
        ("DequantizeLinear", integers, rounded),
    ):
        name = surgery.fresh(f"{edit.tensor}_{op}")
        surgery.graph.nodes.append(gs.Node(op, name, {}, [source, *settings], [target]))
    return integers


def _apart(surgery: Surgery, edit: Round, integers: Any, axis: int, length: int) -> Any:
    """The rounded numbers once more, by a scale for each of `length` positions along `axis`, all the same."""
    settings = [
        surgery.constant(f"{edit.tensor}_scales", np.full(length, edit.scale, np.float32)),
        surgery.constant(f"{edit.tensor}_zero_points", np.full(length, edit.zero_point, np.uint8)),
    ]
    own = gs.Variable(surgery.fresh(f"{edit.tensor}_apart"), dtype=np.float32)
    name = surgery.fresh(f"{edit.tensor}_apart_DequantizeLinear")
    node = gs.Node("DequantizeLinear", name, {"axis": axis}, [integers, *settings], [own])
    surgery.graph.nodes.append(node)
    return own
