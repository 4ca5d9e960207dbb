"""BatchNormalization inserted behind a convolution, and folded into it.

In inference BatchNormalization is an affine map of each channel c:
    y_c = a_c x_c + t_c,    a_c = scale_c / sqrt(var_c + epsilon),    t_c = bias_c - a_c mean_c
so that behind a linear layer x = W*u + b it vanishes into W'_c = a_c W_c and b'_c = a_c b_c + t_c.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from rewriters.base import Refusal
from rewriters.edits import FoldBatchNorm, InsertBatchNorm
from rewriters.parts import Array
from rewriters.surgery import Surgery

LINEAR = ("Conv", "ConvTranspose", "Gemm")


def insert_batchnorm(surgery: Surgery, edits: Sequence[InsertBatchNorm]) -> list[str] | Refusal:
    """Insert BatchNormalizations. The convolution's output tensor keeps its name behind them.

    Node N gets the node `N.bn` and the initializers `N.bn.weight`, `N.bn.bias`, `N.bn.running_mean` and
    `N.bn.running_var` (a number behind a name that is taken). The arrays have one value per output
    channel as the model was opened; what `Keep` took from the convolution is taken from them too.
    Refused: not a linear layer with constant weight, a wrong number of values.
    """
    done = []
    for edit in edits:
        node = surgery.node(edit.node)
        if node is None or node.op not in LINEAR or not surgery.is_constant(node.inputs[1]):
            return Refusal(
                f"insert BatchNormalization: '{edit.node}' is not a {', '.join(LINEAR)} with constant weight",
                edit.node,
            )
        weight, axis = surgery.values(node.inputs[1]), _output_axis(surgery, node)
        channels = weight.shape[axis]
        if node.op == "ConvTranspose":
            channels *= int(surgery.attribute(node, "group", 1))
        size, indices = surgery.kept.get((node.inputs[1].name, axis), (channels, None))
        arrays = {
            "weight": edit.scale,
            "bias": edit.bias,
            "running_mean": edit.mean,
            "running_var": edit.var,
        }
        constants = []
        for name, array in arrays.items():
            if array.shape == (size,) and indices is not None:
                array = array[indices]
            if array.shape != (channels,):
                return Refusal(
                    f"insert BatchNormalization: '{name}' has shape {array.shape}, expected ({size},)",
                    edit.node,
                )
            constants.append(surgery.constant(f"{edit.node}.bn.{name}", array.astype(weight.dtype)))
        target = node.outputs[0]
        raw = gs.Variable(surgery.fresh(f"{target.name}_before_bn"), dtype=target.dtype)
        node.outputs[0] = raw
        surgery.graph.nodes.append(
            gs.Node(
                "BatchNormalization",
                surgery.fresh(f"{edit.node}.bn"),
                {"epsilon": float(edit.epsilon)},
                [raw, *constants],
                [target],
            )
        )
        done.append(f"inserted a BatchNormalization behind {node.op} '{edit.node}'")
    return done


def fold_batchnorm(surgery: Surgery, edits: Sequence[FoldBatchNorm]) -> list[str] | Refusal:
    """Fold BatchNormalizations into the layer before them. Refused: see `why_not_foldable`."""
    done = []
    for edit in edits:
        node = surgery.node(edit.node)
        if node is None:
            return Refusal(f"fold BatchNormalization: no single node is called '{edit.node}'", edit.node)
        reason = why_not_foldable(surgery, node) or _fold(surgery, node)
        if reason:
            return Refusal(f"fold BatchNormalization '{edit.node}': {reason}", edit.node)
        done.append(f"folded BatchNormalization '{edit.node}'")
    return done


def why_not_foldable(surgery: Surgery, node: Any) -> str:
    """Why BatchNormalization `node` cannot be folded, or ''."""
    if node.op != "BatchNormalization" or node.domain:
        return f"it is a {node.op}"
    if surgery.attribute(node, "training_mode", 0) or sum(not t.is_empty() for t in node.outputs) > 1:
        return "it is in training mode"
    if surgery.attribute(node, "spatial", 1) != 1:
        return "it has spatial=0"
    source = node.inputs[0]
    if len(source.inputs) != 1 or source.inputs[0].op not in LINEAR or source.inputs[0].domain:
        return f"no {', '.join(LINEAR)} comes before it"
    layer = source.inputs[0]
    if len(source.outputs) != 1 or any(t is source for t in surgery.graph.outputs):
        return f"the output of '{layer.name}' is used elsewhere too"
    for tensor in [*node.inputs[1:5], *layer.inputs[1:3]]:
        if not tensor.is_empty() and not surgery.is_constant(tensor):
            return f"'{tensor.name}' is not an initializer with its values at hand"
    return ""


def _fold(surgery: Surgery, node: Any) -> str:
    layer = node.inputs[0].inputs[0]
    scale, bias, mean, var = (surgery.values(t).astype(np.float64) for t in node.inputs[1:5])
    a = scale / np.sqrt(var + float(surgery.attribute(node, "epsilon", 1e-5)))
    t = bias - a * mean
    weight = surgery.values(layer.inputs[1])
    has_bias = len(layer.inputs) > 2 and not layer.inputs[2].is_empty()
    old = surgery.values(layer.inputs[2]).astype(np.float64) if has_bias else np.zeros(1)
    if layer.op == "Gemm":
        old = old * float(surgery.attribute(layer, "beta", 1.0))
        if old.ndim == 2 and old.shape[0] != 1:
            return f"the bias of Gemm '{layer.name}' differs from row to row"
    new_bias = np.broadcast_to(old.reshape(-1), a.shape) * a + t
    scaled = _scale_outputs(surgery, layer, weight, a)
    if scaled is None:
        return f"it has {a.size} channels, '{layer.name}' has weight shape {weight.shape}"
    # the values of all of these are final now
    used = [*node.inputs[1:5], *layer.inputs[1:3]]
    surgery.consumed.update(x.name for x in used if len(x.outputs) == 1)
    surgery.own(layer, 1, scaled)
    if len(layer.inputs) < 3:
        layer.inputs.append(gs.Variable.empty())
    if has_bias:
        surgery.own(layer, 2, new_bias.astype(weight.dtype))
    else:
        name = f"{layer.name or layer.inputs[1].name}.bias"
        layer.inputs[2] = surgery.constant(name, new_bias.astype(weight.dtype))
    if layer.op == "Gemm" and "beta" in layer.attrs:
        surgery.set_attribute(layer, "beta", 1.0)
    target = node.outputs[0]
    node.outputs.clear()
    layer.outputs[0] = target
    return ""


def _scale_outputs(surgery: Surgery, layer: Any, weight: Array, a: Array) -> Array | None:
    """`weight` with the part of each output channel c times a_c; None if the numbers of channels differ."""
    axis = _output_axis(surgery, layer)
    group = int(surgery.attribute(layer, "group", 1)) if layer.op == "ConvTranspose" else 1
    if weight.shape[axis] * group != a.size:
        return None
    split = weight.reshape(group, weight.shape[0] // group, *weight.shape[1:])
    shape = [1] * split.ndim
    shape[0], shape[axis + 1] = group, a.size // group
    return (split * a.reshape(shape)).reshape(weight.shape).astype(weight.dtype)


def _output_axis(surgery: Surgery, layer: Any) -> int:
    """The axis of the weight that runs over output channels (of one group, for ConvTranspose)."""
    if layer.op == "Conv":
        return 0
    if layer.op == "ConvTranspose":
        return 1
    return 0 if surgery.attribute(layer, "transB", 0) else 1


def foldable(surgery: Surgery) -> tuple[list[FoldBatchNorm], list[str]]:
    """The edits that fold each BatchNormalization that can be, and why the others cannot."""
    edits, kept, layers = [], [], set()
    for node in surgery.graph.nodes:
        if node.op != "BatchNormalization":
            continue
        reason = why_not_foldable(surgery, node)
        if not reason and surgery.node(node.name) is None:
            reason = "its name is empty or not unique"
        if not reason and id(node.inputs[0].inputs[0]) in layers:
            reason = "another one is folded into the same layer"
        if reason:
            kept.append(f"kept BatchNormalization '{node.name}': {reason}")
        else:
            layers.add(id(node.inputs[0].inputs[0]))
            edits.append(FoldBatchNorm(node.name))
    return edits, kept
