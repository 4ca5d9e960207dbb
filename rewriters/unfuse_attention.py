"""Attention with packed projections as a product and the core of it, MultiHeadAttention.

    q, k, v = split(x W + b);  y = MultiHeadAttention(q, k, v, mask, bias, past key, past value)

The core is the same kernel; the product has its weight where the analysis looks for it.
"""

from __future__ import annotations

from typing import Any

from rewriters.pieces import DOMAIN, Pieces
from rewriters.symbols import Dim


def attention(p: Pieces) -> bool:
    """Fill in the pieces. False: rotary embedding inside, a shared buffer, a mask that the core does not know."""
    x, weight, bias, mask, past, added, length = (p.input(i) for i in range(7))
    a = p.attributes
    shape, columns = p.shape(x), p.shape(weight)
    if shape is None or columns is None or len(shape) != 3 or not isinstance(columns[1], int):
        return False
    if a.get("do_rotary", 0) or a.get("past_present_share_buffer", 0) or length or not _mask(p, mask, shape):
        return False
    sizes = list(a.get("qkv_hidden_sizes", ())) or [columns[1] // 3] * 3
    y = p.add("MatMul", x, weight)
    y = p.add("Add", y, bias) if bias else y
    names = [p.place.free(f"{y}_{name}") for name in "qkv"]
    if p.opset >= 13:
        p.add("Split", y, p.constant("sizes", sizes), to=names, axis=2)
    else:
        p.add("Split", y, to=names, axis=2, split=sizes)
    inputs = [*names, "", mask, added, *_halves(p, past)]
    while not inputs[-1]:
        inputs.pop()
    known = ("num_heads", "scale", "mask_filter_value", "unidirectional")
    settings = {name: a[name] for name in known if name in a}
    present = [p.place.free(f"{y}_present_{name}") for name in ("key", "value")] if p.output(1) else []
    p.add("MultiHeadAttention", *inputs, to=[p.output(0), *present], domain=DOMAIN, **settings)
    if present:
        parts = [_stacked(p, name) for name in present]
        p.add("Concat", *parts, to=[p.output(1)], axis=0)
    return True


def _mask(p: Pieces, mask: str, shape: Any) -> bool:
    """Whether the core takes the mask: a value for each position, or one length (not two) for each sample."""
    own: Any = p.shape(mask) if mask else ()
    if own is None or len(own) != 1:
        return own is not None and len(own) in (0, 2, 3)
    many = own[0].coefficient if isinstance(own[0], Dim) else own[0]
    return own[0] == shape[0] or (isinstance(own[0], Dim) and many == 1)


def _halves(p: Pieces, past: str) -> list[str]:
    """Keys and values of 2 x B x heads x P x size."""
    if not past:
        return []
    return [p.add("Gather", past, p.constant("which", i), axis=0) for i in (0, 1)]


def _stacked(p: Pieces, x: str) -> str:
    if p.opset >= 13:
        return p.add("Unsqueeze", x, p.constant("first", [0]))
    return p.add("Unsqueeze", x, axes=[0])
