"""CropKernel: the centre of a convolution's kernel becomes its kernel (elastic kernel size).

A kernel of size k at dilation d cropped by c on each side (k' = k - 2c) reads the same positions around
the same centres when the padding shrinks by d*c on each side; the output keeps its shape. With automatic
SAME padding the runtime does that by itself. The optional matrix T (k' x k', k' the product of the new
sizes) is Once-for-All's kernel transformation (Cai et al. 2020, section 3): w' = flat(crop(w)) T.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rewriters.base import Refusal
from rewriters.edits import CropKernel
from rewriters.surgery import Surgery


def crop_kernel(surgery: Surgery, edits: Sequence[CropKernel]) -> list[str] | Refusal:
    """Crop kernels. Refused: not a (transposed) convolution with constant weight, a size that cannot be."""
    done = []
    for edit in edits:
        node = surgery.node(edit.node)
        if node is None:
            return Refusal(f"crop kernel: no single node is called '{edit.node}'", edit.node)
        problem = _crop(surgery, node, edit)
        if problem:
            return Refusal(f"crop kernel of {node.op} '{edit.node}': {problem}", edit.node)
        done.append(f"cropped the kernel of '{edit.node}' to {'x'.join(map(str, edit.size))}")
    return done


def _crop(surgery: Surgery, node: Any, edit: CropKernel) -> str:
    """Crop one kernel; the reason why not, or ''."""
    if node.op not in ("Conv", "ConvTranspose") or len(node.inputs) < 2:
        return "only Conv and ConvTranspose have a kernel to crop"
    if not surgery.is_constant(node.inputs[1]):
        return f"its weight '{node.inputs[1].name}' is not an initializer with its values at hand"
    weight = surgery.values(node.inputs[1])
    old, new = weight.shape[2:], tuple(int(k) for k in edit.size)
    if len(new) != len(old) or any(k < 1 or k > o or (o - k) % 2 for k, o in zip(new, old, strict=True)):
        return (
            f"kernel {_x(old)} cannot be cropped to {_x(new)}; take off the same on both sides of each axis"
        )
    cuts = [(o - k) // 2 for k, o in zip(new, old, strict=True)]
    problem = _shrink_padding(surgery, node, old, cuts)
    if problem:
        return problem
    window = tuple(slice(c, c + k) for c, k in zip(cuts, new, strict=True))
    cropped = weight[(slice(None), slice(None), *window)]
    if edit.matrix is not None:
        count = int(np.prod(new))
        if edit.matrix.shape != (count, count):
            return f"the matrix must be {count}x{count}, got {_x(edit.matrix.shape)}"
        flat = cropped.reshape(*weight.shape[:2], count) @ edit.matrix.astype(weight.dtype)
        cropped = flat.reshape(cropped.shape).astype(weight.dtype, copy=False)
    surgery.own(node, 1, np.ascontiguousarray(cropped))
    surgery.set_attribute(node, "kernel_shape", list(new))
    return ""


def _shrink_padding(surgery: Surgery, node: Any, old: tuple[int, ...], cuts: list[int]) -> str:
    """Reduce the padding of `node` by dilation * cut on both sides of each axis; why not, or ''."""
    rank = len(old)
    dilations = surgery.attribute(node, "dilations") or [1] * rank
    less = [d * c for d, c in zip(dilations, cuts, strict=True)]
    if not any(less):
        return ""
    automatic = surgery.attribute(node, "auto_pad") or "NOTSET"
    if node.op == "ConvTranspose" and surgery.attribute(node, "output_shape"):
        return "its output_shape is fixed, so its padding cannot be known"
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        if node.op == "Conv":
            return ""
        # output = stride * input, so the total padding is what follows and must not become negative
        strides = surgery.attribute(node, "strides") or [1] * rank
        extra = surgery.attribute(node, "output_padding") or [0] * rank
        total = [
            d * (k - 1) + 1 + e - s - 2 * m
            for d, k, e, s, m in zip(dilations, old, extra, strides, less, strict=True)
        ]
        return "" if min(total) >= 0 else "the kernel would become smaller than the stride"
    pads = surgery.attribute(node, "pads") if automatic == "NOTSET" else None
    pads = pads or [0] * (2 * rank)
    shrunk = [p - m for p, m in zip(pads, [*less, *less], strict=True)]
    if min(shrunk) < 0:
        return f"padding {pads} cannot shrink by {less} on each side, so the output would change its shape"
    surgery.set_attribute(node, "pads", shrunk)
    return ""


def _x(size: Sequence[int]) -> str:
    return "x".join(map(str, size))
