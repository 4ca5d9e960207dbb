"""Attention of ONNX (opset 23 on): softmax(q k^T) v with its masks and caches. Whole heads can go.

With fewer heads of keys than of queries (grouped queries) a head of keys goes with all query heads that read
it, so that their ratio stays; the node's counts of heads, which 3-D operands need, follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from onnxnas.errors import ModelError
from onnxnas.ops import heads
from onnxnas.ops.attention_torch import add_mask, attend, separate, together, window
from onnxnas.ops.registry import register
from onnxnas.ops.spec import BatchNorm, Flow, Kept, OpSpec, Shapes, TorchFunction
from onnxnas.types import Node, Shape
from rewriters.edits import Edit, SetAttribute

if TYPE_CHECKING:
    from torch import Tensor

_MASK, _PAST_KEY, _PAST_VALUE, _LENGTHS = 3, 4, 5, 6  # inputs


def optional(node: Node, index: int) -> str:
    """The name of an input; '' when it is not there."""
    return node.inputs[index] if index < len(node.inputs) else ""


def _counts(node: Node, q: Shape | None, k: Shape | None) -> tuple[int, int]:
    """Heads of queries, of keys and values."""
    if q is None or k is None:
        raise ValueError("a shape is unknown")
    own, shared = node.attributes.get("q_num_heads", 0), node.attributes.get("kv_num_heads", 0)
    return (int(own), int(shared)) if len(q) == 3 else (q[1], k[1])


def _flow(flow: Flow, node: Node) -> None:
    q, k, v = node.inputs[:3]
    q_count, kv_count = _counts(node, flow.shape(q), flow.shape(k))
    queries = heads.labels(flow, node, q, q_count)
    keys, values = (heads.labels(flow, node, x, kv_count) for x in (k, v))
    heads.grouped(flow, node, queries, keys, values)
    for index, ids in ((_MASK, queries), (_PAST_KEY, keys), (_PAST_VALUE, values)):
        if name := optional(node, index):
            heads.mask(flow, node, name, ids)
    heads.outputs(flow, node, queries, keys, values, queries)


def _edits(node: Node, kept: Kept) -> list[Edit]:
    q, k = node.inputs[:2]
    if len(kept.shape(q) or ()) != 3:
        return []
    q_count, kv_count = _counts(node, kept.shape(q), kept.shape(k))
    now = {"q_num_heads": heads.left(kept, q, q_count), "kv_num_heads": heads.left(kept, k, kv_count)}
    return [SetAttribute(node.name, n, value) for n, value in now.items() if value != node.attributes[n]]


def products(q: Shape | None, keys: int, y: Shape | None) -> int:
    """Multiply-accumulates of q k^T and of the weights with the values."""
    if q is None or y is None:
        return 0
    return q[0] * heads.length(q) * keys * (heads.width(q) + heads.width(y))


def _macs(node: Node, shapes: Shapes) -> int:
    k, past = shapes(node.inputs[1]), shapes(optional(node, _PAST_KEY))
    keys = (0 if k is None else heads.length(k)) + (past[2] if past else 0)
    return products(shapes(node.inputs[0]), keys, shapes(node.outputs[0]))


def _torch(node: Node, constants: Mapping[int, NDArray[Any]], mode: BatchNorm) -> TorchFunction:
    import torch

    if len(node.outputs) > 3 and node.outputs[3]:
        raise ModelError(
            f"node {node.name!r}: Attention that gives its scores has no torch function; "
            "the model can be pruned and measured, but not trained"
        )
    a = node.attributes
    q_count, kv_count = int(a.get("q_num_heads", 0)), int(a.get("kv_num_heads", 0))
    scale, softcap = a.get("scale"), float(a.get("softcap", 0.0))
    before, after = int(a.get("left_window_size", -1)), int(a.get("right_window_size", -1))
    if a.get("is_causal", 0):
        after = 0
    caches = len(node.outputs) > 1

    def run(inputs: Sequence[Any]) -> Tensor | tuple[Tensor, ...]:
        mask, past_key, past_value, lengths = (*inputs[3:], None, None, None, None)[:4]
        flat = inputs[0].ndim == 3
        q, k, v = (separate(x, n) for x, n in zip(inputs[:3], (q_count, kv_count, kv_count), strict=True))
        offset: Any = 0
        if past_key is not None:
            offset = past_key.shape[2]
            k, v = torch.cat((past_key, k), 2), torch.cat((past_value, v), 2)
        keys = k.shape[2]
        bias = add_mask(None, mask, keys)
        if lengths is not None:
            offset = lengths - q.shape[2] if past_key is None else offset
            bias = add_mask(bias, torch.arange(keys, device=q.device) < lengths.reshape(-1, 1, 1, 1), keys)
        if before >= 0 or after >= 0:
            bias = add_mask(bias, window(q.shape[2], keys, offset, before, after, q.device), keys)
        y = attend(q, k, v, bias, None if scale is None else float(scale), softcap)
        y = together(y) if flat else y
        return (y, k, v) if caches else y

    return run


register(OpSpec("Attention", _flow, _torch, _edits, _macs, since=23))
