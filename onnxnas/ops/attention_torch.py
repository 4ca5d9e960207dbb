"""Scaled dot-product attention in torch, for all operators that compute it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, device


def separate(x: Tensor, heads: int) -> Tensor:
    """B x S x (heads * size) as B x heads x S x size; of rank 4 it is so already."""
    return x if x.ndim == 4 else x.unflatten(2, (heads, -1)).transpose(1, 2)


def together(x: Tensor) -> Tensor:
    """B x heads x S x size as B x S x (heads * size)."""
    return x.transpose(1, 2).flatten(2)


def shared(x: Tensor, heads: int) -> Tensor:
    """Keys or values for `heads` query heads: each is read by as many that follow each other."""
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], 1)


def window(queries: int, keys: int, offset: Tensor | int, before: int, after: int, device: device) -> Tensor:
    """True where query i may see key j: i + offset - before <= j <= i + offset + after; -1 is no bound.

    `offset` for each sample (b,) gives b x 1 x queries x keys, a number queries x keys.
    """
    import torch

    i, j = torch.arange(queries, device=device)[:, None], torch.arange(keys, device=device)
    if not isinstance(offset, int):
        offset = offset.reshape(-1, 1, 1, 1)
    distance = j - i - offset
    seen = torch.ones_like(distance, dtype=torch.bool)
    if before >= 0:
        seen = seen & (distance >= -before)
    return seen & (distance <= after) if after >= 0 else seen


def add_mask(bias: Tensor | None, mask: Tensor | None, keys: int) -> Tensor | None:
    """Another mask, True where something may be seen or a number to add, on top of what is there."""
    import torch
    from torch.nn import functional as F

    if mask is None:
        return bias
    boolean = mask.dtype == torch.bool
    missing = keys - mask.shape[-1]
    if missing > 0:
        mask = F.pad(mask, (0, missing), value=0.0 if boolean else float("-inf"))
    if bias is None:
        return mask
    if bias.dtype == torch.bool:
        if boolean:
            return bias & mask
        bias, mask, boolean = mask, bias, True
    if boolean:
        return torch.where(mask, bias, torch.full_like(bias, float("-inf")))
    return bias + mask


def attend(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float | None, softcap: float = 0.0
) -> Tensor:
    """softmax(scale * q k^T + bias) v for B x heads x S x size; a query that may see nothing gives zeros.

    `bias` is boolean (True: may be seen) or added. `softcap` c > 0: scores s become c tanh(s / c) first.
    """
    from torch.nn import functional as F

    k, v = shared(k, q.shape[1]), shared(v, q.shape[1])
    if softcap <= 0:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)
    return weights(q, k, bias, scale, softcap) @ v


def weights(q: Tensor, k: Tensor, bias: Tensor | None, scale: float | None, softcap: float = 0.0) -> Tensor:
    """The weights of `attend`, B x heads x S x T."""
    import torch

    scores = q @ k.transpose(2, 3) * (q.shape[3] ** -0.5 if scale is None else scale)
    if softcap > 0:
        scores = softcap * torch.tanh(scores / softcap)
    if bias is not None:
        scores = scores.masked_fill(~bias, -torch.inf) if bias.dtype == torch.bool else scores + bias
    blind = (scores == float("-inf")).all(-1, keepdim=True)
    return scores.masked_fill(blind, 0.0).softmax(-1).masked_fill(blind, 0.0)
