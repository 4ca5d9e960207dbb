"""Graph surgery on ONNX models: a model and instructions in, a model out. Knows nothing else."""

from rewriters.apply import apply, fold_all
from rewriters.base import Refusal, Rewriter, Rewritten
from rewriters.batch import free_batch
from rewriters.canonical import Canonical, canonicalise
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
from rewriters.observe import with_means, with_means_given, with_ranges
from rewriters.parts import Parts
from rewriters.unfuse import name_domains

__all__ = [
    "Bypass",
    "Canonical",
    "CropKernel",
    "Edit",
    "FoldBatchNorm",
    "InsertBatchNorm",
    "Keep",
    "Parts",
    "Refusal",
    "ReplaceConstant",
    "Rewriter",
    "Rewritten",
    "Round",
    "SetAttribute",
    "SetInitializer",
    "StoreIntegers",
    "apply",
    "canonicalise",
    "fold_all",
    "free_batch",
    "name_domains",
    "with_means",
    "with_means_given",
    "with_ranges",
]
