"""Shapes of what operators of the domain com.microsoft give; onnx has no inference for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rewriters.symbols import Element, product

DOMAIN = "com.microsoft"
Given = Sequence[tuple[Element, ...] | None]
Found = Sequence[tuple[Element, ...] | None]


def _like_input(attributes: Mapping[str, Any], given: Given) -> Found:
    return [given[0]]


def _heads(attributes: Mapping[str, Any], given: Given) -> Found:
    """Queries B x S x D, keys and values B x T x D', or of another layer B x heads x T x size."""
    q, key, value, _, _, _, past = (*given, *(None,) * 7)[:7]
    if q is None or value is None:
        return []
    if len(value) == 4:
        return [(*q[:2], product((value[1], value[3])))]
    if past is not None or key is None or len(key) != 3:
        return [(*q[:2], value[2])]
    return [(*q[:2], value[2]), *(_by_head(x, int(attributes["num_heads"])) for x in (key, value))]


def _by_head(x: tuple[Element, ...], count: int) -> tuple[Element, ...] | None:
    """B x T x (heads * size) as B x heads x T x size, where that is a number."""
    return (x[0], count, x[1], x[2] // count) if isinstance(x[2], int) else None


def _grouped(attributes: Mapping[str, Any], given: Given) -> Found:
    """Queries B x S x (heads * size), or with keys and values behind each other in the last axis."""
    q, key = given[0], given[1] if len(given) > 1 else None
    if q is None or key is not None or not isinstance(q[-1], int):
        return [q]
    own, shared = int(attributes["num_heads"]), int(attributes["kv_num_heads"])
    return [(*q[:2], q[-1] // (own + 2 * shared) * own)]


SHAPES: dict[str, Callable[[Mapping[str, Any], Given], Found]] = {
    **dict.fromkeys(("BiasGelu", "FastGelu", "Gelu", "QuickGelu", "RotaryEmbedding"), _like_input),
    "MultiHeadAttention": _heads,
    "GroupQueryAttention": _grouped,
}
"""operator -> function of its attributes and input shapes that gives output shapes as far as they are known."""
