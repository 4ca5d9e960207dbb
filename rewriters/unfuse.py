"""What ONNX Runtime's optimisers fuse is taken apart again: then the analysis meets an addition as an addition.

Residual additions, biases, embeddings and activations that a fused operator hides become nodes of their own,
as an exporter writes them. ONNX Runtime fuses them again when it loads the result. What standard operators
cannot say, the core of attention, stays one operator: packed projections in front of it become a product.

    SkipLayerNormalization   -> Add, (Add), LayerNormalization        and its simplified form
    EmbedLayerNormalization  -> Gather, Add, LayerNormalization
    FusedConv, FusedGemm     -> Conv or Gemm, (Add), activation
    FusedMatMul              -> Transpose, MatMul, (Mul)
    Attention                -> MatMul, Add, Split, MultiHeadAttention
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from rewriters.pieces import DOMAIN, Pieces, Place
from rewriters.unfuse_attention import attention

Expansion = Callable[[Pieces], bool]
"""Fills in the pieces; False when the node's form is not covered, and it stays as it is."""


def expand(
    node: onnx.NodeProto, attributes: Mapping[str, Any], place: Place, opset: int
) -> list[onnx.NodeProto] | None:
    """The nodes that do what the fused `node` does, and write its outputs; None for every other node."""
    fused = EXPANSIONS.get(node.op_type) if node.domain == DOMAIN else None
    pieces = Pieces(node, attributes, place, opset)
    return pieces.nodes if fused is not None and fused(pieces) else None


def name_domains(model: onnx.ModelProto) -> None:
    """Operators that ONNX Runtime alone defines in the standard domain are given its own domain, in place.

    It writes LayerNormalization below opset 17 and SimplifiedLayerNormalization so; onnx's checker refuses them.
    """
    versions = [o.version for o in model.opset_import if o.domain in ("", "ai.onnx")]
    found = [
        node
        for node in model.graph.node
        if node.domain in ("", "ai.onnx")
        and node.op_type in ("LayerNormalization", "SimplifiedLayerNormalization")
        and versions
        and not onnx.defs.has(node.op_type, versions[0], "")
    ]
    for node in found:
        node.domain = DOMAIN
    if found and all(o.domain != DOMAIN for o in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))


# normalisations


def _layer_norm(p: Pieces, x: str, scale: str, bias: str, to: Sequence[str]) -> None:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias over the last axis."""
    epsilon = float(p.attributes.get("epsilon", 1e-5))
    if p.opset >= 17:
        inputs = [x, scale, bias] if bias else [x, scale]
        p.add("LayerNormalization", *inputs, to=to, axis=-1, epsilon=epsilon)
        return
    centred = p.add("Sub", x, p.over("ReduceMean", x, [-1]))
    y = _over_root(p, centred, p.add("Pow", centred, p.constant("two", 2.0, x)), epsilon)
    y = p.add("Mul", y, scale, to=["" if bias else to[0]])
    if bias:
        p.add("Add", y, bias, to=[to[0]])


def _rms_norm(p: Pieces, x: str, scale: str, to: Sequence[str]) -> None:
    """x / sqrt(mean square + epsilon) * scale over the last axis."""
    epsilon = float(p.attributes.get("epsilon", 1e-5))
    if p.opset >= 23:
        p.add("RMSNormalization", x, scale, to=[to[0]], axis=-1, epsilon=epsilon)
        return
    y = _over_root(p, x, p.add("Pow", x, p.constant("two", 2.0, x)), epsilon)
    p.add("Mul", y, scale, to=[to[0]])


def _over_root(p: Pieces, x: str, squares: str, epsilon: float) -> str:
    mean = p.over("ReduceMean", squares, [-1])
    return p.add("Div", x, p.add("Sqrt", p.add("Add", mean, p.constant("epsilon", epsilon, x))))


def _over_last(p: Pieces) -> bool:
    """Whether only the result is asked for, over the last axis."""
    axis, shape = int(p.attributes.get("axis", -1)), p.shape(p.input(0))
    last = axis == -1 or (shape is not None and axis == len(shape) - 1)
    return last and not p.output(1) and not p.output(2)


def _normalisation(p: Pieces) -> bool:
    if not _over_last(p):
        return False
    if p.node.op_type == "LayerNormalization":
        _layer_norm(p, p.input(0), p.input(1), p.input(2), [p.output(0)])
    else:
        _rms_norm(p, p.input(0), p.input(1), [p.output(0)])
    return True


def _skip_normalisation(p: Pieces) -> bool:
    """(input + bias) + skip, normalised; the sum may be an output too."""
    if p.output(1) or p.output(2):
        return False
    simplified = p.node.op_type == "SkipSimplifiedLayerNormalization"
    bias = p.input(3 if simplified else 4)
    x = p.add("Add", p.input(0), bias) if bias else p.input(0)
    x = p.add("Add", x, p.input(1), to=[p.output(3)])
    if simplified:
        _rms_norm(p, x, p.input(2), [p.output(0)])
    else:
        _layer_norm(p, x, p.input(2), p.input(3), [p.output(0)])
    return True


def _embed_normalisation(p: Pieces) -> bool:
    """word[ids] + position[0 .. S or positions] (+ segment[segments]), normalised; the length of each mask."""
    ids, segments, word, position, segment, scale, bias, mask, positions = (p.input(i) for i in range(9))
    if p.opset < 11:
        return False
    if not positions:
        length = p.add("Slice", p.add("Shape", ids), p.constant("one", [1]), p.constant("two", [2]))
        zero = p.constant("zero", [0])
        where = p.add("Slice", position, zero, length, zero)
    else:
        where = p.add("Gather", position, positions)
    last = p.output(2)
    x = p.add("Add", p.add("Gather", word, ids), where, to=["" if segments else last])
    if segments:
        x = p.add("Add", x, p.add("Gather", segment, segments), to=[last])
    _layer_norm(p, x, scale, bias, [p.output(0)])
    if p.output(1) and mask:
        p.over("ReduceSum", mask, [1], to=p.output(1), keepdims=0)
    elif p.output(1):
        batch = p.add("Slice", p.add("Shape", ids), p.constant("zero", [0]), p.constant("one", [1]))
        value = onnx.numpy_helper.from_array(np.zeros(1, np.int32))
        p.add("ConstantOfShape", batch, to=[p.output(1)], value=value)
    return True


# products with what follows them

_ACTIVATIONS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("Relu", "Tanh", "Sigmoid", "Softplus", "HardSwish"), ()),
    **dict.fromkeys(("LeakyRelu", "Elu", "ThresholdedRelu"), ("alpha",)),
    "HardSigmoid": ("alpha", "beta"),
    "Clip": ("min", "max"),
}
"""Activations in fused operators, with the names of their parameters in order."""


def _activation(p: Pieces, x: str, settings: Sequence[float], to: str) -> None:
    """The activation that the fused node names, from `x` to `to`."""
    name = p.attributes["activation"].decode()
    given: dict[str, Any] = dict(zip(_ACTIVATIONS[name], map(float, settings), strict=False))
    if name == "Clip" and p.opset >= 11:
        p.add(name, x, *(p.constant(what, value, x) for what, value in given.items()), to=[to])
    else:
        p.add(name, x, to=[to], **given)


def _with_activation(p: Pieces) -> bool | None:
    """Whether there is an activation behind the product; None for one that is not known here."""
    name = p.attributes.get("activation", b"").decode()
    return None if name and name not in _ACTIVATIONS else bool(name)


def _others(p: Pieces, *left_out: str) -> dict[str, Any]:
    """The attributes that the plain operator has too."""
    return {k: v for k, v in p.attributes.items() if not k.startswith("activation") and k not in left_out}


def _fused_conv(p: Pieces) -> bool:
    active, residual = _with_activation(p), p.input(3)
    if active is None:
        return False
    inputs = [name for name in (p.input(0), p.input(1), p.input(2)) if name]
    end = p.output(0)
    y = p.add("Conv", *inputs, to=["" if active or residual else end], **_others(p))
    if residual:
        y = p.add("Add", y, residual, to=["" if active else end])
    if active:
        _activation(p, y, p.attributes.get("activation_params", ()), end)
    return True


def _fused_gemm(p: Pieces) -> bool:
    active = _with_activation(p)
    if active is None:
        return False
    inputs = [name for name in p.node.input if name]
    y = p.add("Gemm", *inputs, to=["" if active else p.output(0)], **_others(p, "leaky_relu_alpha"))
    if active:
        _activation(p, y, _numbered(p), p.output(0))
    return True


def _numbered(p: Pieces) -> list[float]:
    names = ("activation_alpha", "activation_beta", "activation_gamma")
    return [float(p.attributes[name]) for name in names if name in p.attributes]


def _fused_matmul(p: Pieces) -> bool:
    """alpha * op(A) op(B): the last two axes swapped (trans), the first put behind the batch (transBatch)."""
    alpha, operands = float(p.attributes.get("alpha", 1.0)), []
    for name, side in ((p.input(0), "A"), (p.input(1), "B")):
        swap, batch = (bool(p.attributes.get(f"trans{what}{side}", 0)) for what in ("", "Batch"))
        shape = p.shape(name)
        if (swap or batch) and (shape is None or len(shape) < 2):
            return False
        perm = list(range(len(shape or ())))
        if batch:
            perm = [*perm[1:-1], perm[0], perm[-1]]
        if swap:
            perm[-2:] = perm[:-3:-1]
        operands.append(p.add("Transpose", name, perm=perm) if perm != sorted(perm) else name)
    y = p.add("MatMul", *operands, to=["" if alpha != 1 else p.output(0)])
    if alpha != 1:
        p.add("Mul", y, p.constant("alpha", alpha, p.input(0)), to=[p.output(0)])
    return True


# additions


def _bias_add(p: Pieces) -> bool:
    p.add("Add", p.add("Add", p.input(0), p.input(1)), p.input(2), to=[p.output(0)])
    return True


def _gated_add(p: Pieces) -> bool:
    p.add("Add", p.input(0), p.add("Mul", p.input(1), p.input(2)), to=[p.output(0)])
    return True


def _bias_split_gelu(p: Pieces) -> bool:
    """The left half of x + bias times the Gelu of the right one."""
    x = p.add("Add", p.input(0), p.input(1))
    right = p.place.free(f"{x}_right")
    halves: dict[str, Any] = {"num_outputs": 2} if p.opset >= 18 else {}
    left = p.add("Split", x, to=["", right], axis=-1, **halves)
    p.add("Mul", left, p.add("Gelu", right, domain=DOMAIN), to=[p.output(0)])
    return True


EXPANSIONS: dict[str, Expansion] = {
    "LayerNormalization": _normalisation,
    "SimplifiedLayerNormalization": _normalisation,
    "SkipLayerNormalization": _skip_normalisation,
    "SkipSimplifiedLayerNormalization": _skip_normalisation,
    "EmbedLayerNormalization": _embed_normalisation,
    "FusedConv": _fused_conv,
    "FusedGemm": _fused_gemm,
    "FusedMatMul": _fused_matmul,
    "TransposeMatMul": _fused_matmul,
    "BiasAdd": _bias_add,
    "GatedAdd": _gated_add,
    "BiasSplitGelu": _bias_split_gelu,
    "Attention": attention,
}
