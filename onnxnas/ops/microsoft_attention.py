"""Attention of com.microsoft: MultiHeadAttention and GroupQueryAttention, with their masks, biases and caches.

Queries, keys and values are B x S x (heads * size); those of GroupQueryAttention may come as one tensor.
A head goes with its part of the bias of the projections that MultiHeadAttention may carry; the node's counts
of heads follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxnas.errors import ModelError
from onnxnas.ops import heads
from onnxnas.ops.attention import optional, products
from onnxnas.ops.attention_torch import add_mask, attend, separate, together, window
from onnxnas.ops.channels import Ids
from onnxnas.ops.registry import register
from onnxnas.ops.rotary import turned
from onnxnas.ops.spec import BatchNorm, Flow, Kept, OpSpec, Shapes, TorchFunction
from onnxnas.types import Node
from rewriters.edits import Edit, SetAttribute

if TYPE_CHECKING:
    from torch import Tensor

Constants = Mapping[int, NDArray[Any]]
DOMAIN = "com.microsoft"


def _bind(flow: Flow, node: Node, places: Mapping[int, Ids]) -> None:
    """Inputs that may have a value for each head."""
    for index, ids in places.items():
        if name := optional(node, index):
            heads.mask(flow, node, name, ids)


# MultiHeadAttention: query, key, value, bias, padding mask, added to scores, past key, past value


def _multi_flow(flow: Flow, node: Node) -> None:
    count = int(node.attributes["num_heads"])
    if not all(optional(node, i) for i in range(3)):
        raise ValueError("packed operands")
    given = node.inputs[:3]
    ids = [heads.labels(flow, node, name, count) for name in given]
    queries = ids[0]
    heads.grouped(flow, node, queries, *ids[1:])
    if bias := optional(node, 3):
        shapes = [flow.shape(name) or () for name in given]
        flow.bind(
            bias,
            0,
            np.concatenate([np.repeat(own, s[-1] // count) for own, s in zip(ids, shapes, strict=True)]),
            node,
        )
    flow.freeze(optional(node, 4), node, "tokens cannot go")
    _bind(flow, node, {5: queries, 6: queries, 7: queries})
    heads.outputs(flow, node, *(queries,) * 4)


def _multi_edits(node: Node, kept: Kept) -> list[Edit]:
    count = int(node.attributes["num_heads"])
    now = heads.left(kept, node.inputs[0], count)
    return [] if now == count else [SetAttribute(node.name, "num_heads", now)]


def _multi_macs(node: Node, shapes: Shapes) -> int:
    q, k, past, y = (shapes(name) for name in (*node.inputs[:2], optional(node, 6), node.outputs[0]))
    return 0 if k is None else products(q, heads.length(k) + (past[2] if past else 0), y)


def _operands(inputs: Sequence[Any], count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values as B x heads x S x size, with the bias of their projections."""
    q, k, v, bias = (*inputs, None)[:4]
    if bias is not None:
        parts = bias.split([q.shape[2], k.shape[2], v.shape[2]])
        q, k, v = (x + part for x, part in zip((q, k, v), parts, strict=True))
    return separate(q, count), separate(k, count), separate(v, count)


def _padding(mask: Tensor, keys: int, masked: float) -> Tensor:
    """What a padding mask adds to the scores: B x T or B x S x T of 0 and 1, or a length for each sample."""
    import torch

    if mask.ndim == 1:
        mask = torch.arange(keys, device=mask.device) < mask[:, None]
    mask = mask[:, None] if mask.ndim == 3 else mask[:, None, None]
    return (mask <= 0 if mask.dtype != torch.bool else ~mask).float() * masked


def _multi_torch(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
    import torch

    unsupported = [i for i in (8, 9) if optional(node, i)] or (len(node.outputs) > 3 and node.outputs[3])
    if unsupported:
        raise ModelError(
            f"node {node.name!r}: MultiHeadAttention with a shared buffer or with scores has no torch function; "
            "the model can be pruned and measured, but not trained"
        )
    a = node.attributes
    count, causal = int(a["num_heads"]), bool(a.get("unidirectional", 0))
    scale, masked = float(a.get("scale", 0.0)) or None, float(a.get("mask_filter_value", -10000.0))
    caches = len(node.outputs) > 1

    def run(inputs: Sequence[Any]) -> Tensor | tuple[Tensor, ...]:
        q, k, v = _operands(inputs, count)
        padding, bias, past_key, past_value = (*inputs[4:], None, None, None, None)[:4]
        offset = 0
        if past_key is not None:
            offset = past_key.shape[2]
            k, v = torch.cat((past_key, k), 2), torch.cat((past_value, v), 2)
        keys = k.shape[2]
        if padding is not None:
            bias = add_mask(_padding(padding, keys, masked), bias, keys)
        if causal:
            bias = add_mask(bias, window(q.shape[2], keys, offset, -1, 0, q.device), keys)
        y = together(attend(q, k, v, bias, scale))
        return (y, k, v) if caches else y

    return run


# GroupQueryAttention: query, key, value, past key, past value, last keys, longest, cos, sin, positions, bias, sink


def _group_flow(flow: Flow, node: Node) -> None:
    own, shared = int(node.attributes["num_heads"]), int(node.attributes["kv_num_heads"])
    if any(optional(node, i) for i in (12, 13)):
        raise ValueError("a quantised cache")
    if optional(node, 1):
        queries = heads.labels(flow, node, node.inputs[0], own)
        keys, values = (heads.labels(flow, node, name, shared) for name in node.inputs[1:3])
    else:
        queries, keys, values = _packed(flow, node, own, shared)
    heads.grouped(flow, node, queries, keys, values)
    _bind(flow, node, {3: keys, 4: values, 10: queries})
    if sink := optional(node, 11):
        heads.bind_axis(flow, node, sink, -1, queries)
    heads.outputs(flow, node, queries, keys, values, queries)


def _packed(flow: Flow, node: Node, own: int, shared: int) -> tuple[Ids, Ids, Ids]:
    """Queries, keys and values behind each other on the last axis: own, shared and shared heads."""
    ids = heads.labels(flow, node, node.inputs[0], own + 2 * shared)
    return ids[:own], ids[own : own + shared], ids[own + shared :]


def _group_counts(node: Node, kept: Kept) -> tuple[int, int]:
    own, shared = int(node.attributes["num_heads"]), int(node.attributes["kv_num_heads"])
    if optional(node, 1):
        return heads.left(kept, node.inputs[0], own), heads.left(kept, node.inputs[1], shared)
    mask = kept.mask(node.inputs[0], 2)
    if mask is None:
        return own, shared
    by_head = mask.reshape(own + 2 * shared, -1)[:, 0]
    return int(by_head[:own].sum()), int(by_head[own : own + shared].sum())


def _group_edits(node: Node, kept: Kept) -> list[Edit]:
    now = dict(zip(("num_heads", "kv_num_heads"), _group_counts(node, kept), strict=True))
    return [SetAttribute(node.name, n, value) for n, value in now.items() if value != node.attributes[n]]


def _group_macs(node: Node, shapes: Shapes) -> int:
    q, k, past = (shapes(optional(node, i)) for i in (0, 1, 3))
    y = shapes(node.outputs[0])
    if q is None or y is None:
        return 0
    return products(y, (q if k is None else k)[1] + (past[2] if past else 0), y)


def _group_torch(node: Node, constants: Constants, mode: BatchNorm) -> TorchFunction:
    import torch

    a = node.attributes
    strange = [i for i in range(11, 16) if optional(node, i)] or a.get("smooth_softmax", 0) > 0
    if strange or a.get("sliding_window_cache", 0) or len(node.outputs) > 3:
        raise ModelError(
            f"node {node.name!r}: GroupQueryAttention with sinks, inner norms, scores or another cache has no "
            "torch function; the model can be pruned and measured, but not trained"
        )
    own, shared = int(a["num_heads"]), int(a["kv_num_heads"])
    scale, softcap = float(a.get("scale", 0.0)) or None, float(a.get("softcap", 0.0))
    rotary, interleaved = bool(a.get("do_rotary", 0)), bool(a.get("rotary_interleaved", 0))
    local = int(a.get("local_window_size", -1))
    before, after = (local - 1 if local > 0 else -1), (0 if a.get("causal", 1) else -1)
    caches = len(node.outputs) > 1

    def run(inputs: Sequence[Any]) -> Tensor | tuple[Tensor, ...]:
        q, k, v, past_key, past_value, last, _, cos, sin, positions, bias = (*inputs, *(None,) * 8)[:11]
        if k is None:
            size = q.shape[2] // (own + 2 * shared)
            q, k, v = q.split([own * size, shared * size, shared * size], 2)
        q, k, v = separate(q, own), separate(k, shared), separate(v, shared)
        old = 0 if past_key is None else past_key.shape[2]
        if rotary:
            if positions is None:
                positions = old + torch.arange(q.shape[2], device=q.device)
            angles = cos[positions.long()], sin[positions.long()]
            q, k = (turned(x, *angles, interleaved) for x in (q, k))
        if past_key is not None:
            k, v = torch.cat((past_key, k), 2), torch.cat((past_value, v), 2)
        keys = k.shape[2]
        there = torch.arange(keys, device=q.device) <= last.reshape(-1, 1, 1, 1)
        bias = add_mask(there, bias, keys)
        if before >= 0 or after >= 0:
            bias = add_mask(bias, window(q.shape[2], keys, old, before, after, q.device), keys)
        y = together(attend(q, k, v, bias, scale, softcap))
        return (y, k, v) if caches else y

    return run


register(
    OpSpec("MultiHeadAttention", _multi_flow, _multi_torch, _multi_edits, _multi_macs, domain=DOMAIN),
    OpSpec("GroupQueryAttention", _group_flow, _group_torch, _group_edits, _group_macs, domain=DOMAIN),
)
