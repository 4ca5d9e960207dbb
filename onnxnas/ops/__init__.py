"""One table of operators: how channels flow, what must be edited, what it costs, how torch does it."""

from onnxnas.ops.registry import register, resolve, torch_function
from onnxnas.ops.spec import OpSpec

# Importing a family registers its operators.
from onnxnas.ops import (  # isort: skip
    attention as attention,
    classical as classical,
    concat_split as concat_split,
    control as control,
    conv as conv,
    detection as detection,
    einsum as einsum,
    elementwise as elementwise,
    gather_slice_pad as gather_slice_pad,
    indexing as indexing,
    linear as linear,
    microsoft as microsoft,
    microsoft_attention as microsoft_attention,
    normalization as normalization,
    pooling as pooling,
    quantization as quantization,
    recurrent as recurrent,
    reduction as reduction,
    reshape_transpose as reshape_transpose,
    resize as resize,
    rotary as rotary,
    sampling as sampling,
)

__all__ = ["OpSpec", "register", "resolve", "torch_function"]
