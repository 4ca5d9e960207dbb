"""`apply`: a model and edits in, a new model or a refusal out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx

from rewriters.base import Refusal, Rewriter, Rewritten, perform
from rewriters.batchnorm import fold_batchnorm, foldable, insert_batchnorm
from rewriters.bypass import bypass
from rewriters.clean import clean
from rewriters.consistency import settle
from rewriters.edits import (
    Bypass,
    CropKernel,
    Edit,
    FoldBatchNorm,
    InsertBatchNorm,
    Keep,
    ReplaceConstant,
    Round,
    SetAttribute,
    SetInitializer,
    StoreIntegers,
)
from rewriters.kernel import crop_kernel
from rewriters.parts import Parts
from rewriters.quantise import round_to_8_bits, store_integers
from rewriters.slice import keep, replace_constant, set_attribute, set_initializer
from rewriters.surgery import Surgery

# In this order: values before links, so that each name still means what it meant in the model as given.
ORDER: tuple[tuple[type, Rewriter[Any]], ...] = (
    (Keep, keep),
    (SetAttribute, set_attribute),
    (ReplaceConstant, replace_constant),
    (CropKernel, crop_kernel),
    (InsertBatchNorm, insert_batchnorm),
    (FoldBatchNorm, fold_batchnorm),
    (Bypass, bypass),
    (StoreIntegers, store_integers),
    (Round, round_to_8_bits),
    (SetInitializer, set_initializer),
)


def apply(model: onnx.ModelProto | Parts, edits: Sequence[Edit]) -> Rewritten | Refusal:
    """Perform `edits` on a copy of `model`, which is never modified.

    Of a protobuf the result is a protobuf that shares nothing with model or edits; `Parts` give parts, which hold
    the arrays of both until they are written.

    All edits refer to `model` as given, whatever their order; only `SetInitializer` comes last. The result
    has no dead nodes, unused initializers or value_info; its nodes are in topological order with unique
    names; its inputs and outputs are those of `model` (an output's declared shape follows the edits).
    What onnx's shape inference finds contradictory is refused.

    Raises:
        TypeError: something in `edits` is not an edit.
    """
    kinds = [kind for kind, _ in ORDER]
    for edit in edits:
        if type(edit) not in kinds:
            raise TypeError(f"not an edit: {edit!r}")
    try:
        surgery = Surgery(model)
    except ValueError as problem:
        return Refusal(str(problem), "")
    result = _perform(surgery, edits)
    return result if isinstance(model, Parts) else _whole(result)


def fold_all(model: onnx.ModelProto | Parts) -> Rewritten | Refusal:
    """Fold every BatchNormalization that can be; `done` also says which could not and why."""
    try:
        surgery = Surgery(model)
    except ValueError as problem:
        return Refusal(str(problem), "")
    edits, kept = foldable(surgery)
    result = _perform(surgery, edits)
    if isinstance(result, Rewritten):
        result = Rewritten(result.parts, (*result.done, *kept))
    return result if isinstance(model, Parts) else _whole(result)


def _whole(result: Rewritten | Refusal) -> Rewritten | Refusal:
    """The result with its protobuf made, before anybody changes an array that went into it."""
    if isinstance(result, Rewritten):
        _ = result.model
    return result


def _perform(surgery: Surgery, edits: Sequence[Edit]) -> Rewritten | Refusal:
    done: list[str] = []
    for kind, rewriter in ORDER:
        result = perform(rewriter, surgery, [edit for edit in edits if type(edit) is kind])
        if isinstance(result, Refusal):
            return result
        done += result
    circle = clean(surgery)
    if circle:
        return Refusal("the edits make a circle: a bypass leads back to what it skips", circle)
    out = surgery.close()
    if edits:
        reason, node = settle(out, surgery.parts)
        if reason:
            return Refusal(reason, node)
    return Rewritten(out, tuple(done))
