"""The instructions that a rewriter understands.

An edit names nodes and tensors of one ONNX model and says what becomes of them. Edits are plain
values: they know nothing of search spaces, torch or runtimes. All edits of one call refer to the
model *before* any of them, except `SetInitializer`, which is applied last and gives final values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

AttributeValue = int | float | str | tuple[int, ...] | tuple[float, ...] | None


@dataclass(frozen=True)
class Bypass:
    """Let every consumer of tensor `exit` (graph outputs too) read tensor `entry`; what nobody uses goes."""

    entry: str
    exit: str


@dataclass(frozen=True, eq=False)
class Keep:
    """Keep `indices` (in this order: a permutation is a `Keep` too) of `axis` of an initializer."""

    tensor: str
    axis: int
    indices: NDArray[np.int64]


@dataclass(frozen=True)
class SetAttribute:
    """Set attribute `name` of the node called `node`; the value None removes it."""

    node: str
    name: str
    value: AttributeValue


@dataclass(frozen=True, eq=False)
class ReplaceConstant:
    """Give input number `input` of `node` a constant of its own; other users of the old one keep it.

    An absent optional input is added.
    """

    node: str
    input: int
    value: NDArray[np.generic]


@dataclass(frozen=True, eq=False)
class CropKernel:
    """Centre-crop the kernel of convolution `node` to `size`, reducing the padding so that shapes stay.

    `matrix`, if given, is the learned transformation (Once-for-All, Cai et al. 2020, section 3): a
    (k x k) matrix, k = prod(size), that multiplies the flattened cropped kernel: w' = w @ matrix.
    """

    node: str
    size: tuple[int, ...]
    matrix: NDArray[np.floating] | None = None


@dataclass(frozen=True, eq=False)
class InsertBatchNorm:
    """Insert a BatchNormalization behind convolution `node`; arrays have one value per output channel."""

    node: str
    scale: NDArray[np.floating]
    bias: NDArray[np.floating]
    mean: NDArray[np.floating]
    var: NDArray[np.floating]
    epsilon: float = 1e-5


@dataclass(frozen=True)
class FoldBatchNorm:
    """Fold BatchNormalization `node` into the convolution, transposed convolution or Gemm before it."""

    node: str


@dataclass(frozen=True, eq=False)
class StoreIntegers:
    """Store constant input number `input` of `node` as `values`, which a DequantizeLinear multiplies by `scale`.

    `scale` is one number, or one for each position along `axis`. Nodes that are given the same values and scales of
    one constant share them.
    """

    node: str
    input: int
    values: NDArray[np.integer]
    scale: NDArray[np.floating]
    axis: int = 0


@dataclass(frozen=True)
class Round:
    """Let the readers of activation `tensor` read it rounded: round(x / scale) + zero_point, uint8, and back.

    `readers` are names of nodes; None: whoever reads it, outputs of the graph too. `apart` are nodes among them, each
    with an axis of the tensor and its length, that shall compute with floats: they read the same numbers through a
    DequantizeLinear with a scale for each position along that axis. ONNX Runtime gives 8 bits, by one scale for all
    of them, to the weights of whatever convolution or Gemm it finds behind one with a single scale.
    """

    tensor: str
    scale: float
    zero_point: int
    readers: tuple[str, ...] | None = None
    apart: tuple[tuple[str, int, int], ...] = ()


@dataclass(frozen=True, eq=False)
class SetInitializer:
    """Replace the value of initializer `tensor`; `value` has its shape after all other edits."""

    tensor: str
    value: NDArray[np.generic]


Edit = (
    Bypass
    | Keep
    | SetAttribute
    | ReplaceConstant
    | CropKernel
    | InsertBatchNorm
    | FoldBatchNorm
    | StoreIntegers
    | Round
    | SetInitializer
)
