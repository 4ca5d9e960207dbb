"""Shape-like inputs that are known but for the batch, written as constants.

A Reshape target with one unknown entry becomes constant with 0 (the input's own dimension) or -1 there;
an Expand target may say 1 where the input's dimension stays (`own_lengths`); the end of a Slice that is the dimension
itself may be any larger number; Resize sizes become scales where each is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rewriters.symbols import Dim, Element, Unknown, divide, product

Array = NDArray[Any]
Shape = Sequence[Element]
ALL = np.iinfo(np.int64).max


def reshape(shape: Shape | None, target: Array, allowzero: bool) -> tuple[Array | None, Shape | None]:
    """The constant target, and the output's shape, of a Reshape; None for what cannot be said.

    `target` may hold `Dim`s, and 0 and -1 with their ONNX meaning; `shape` is the input's.
    """
    entries = [_item(v) for v in target]
    if not allowzero:
        if shape is None and 0 in entries:
            return None, None
        entries = [
            shape[i] if e == 0 and shape is not None and i < len(shape) else e for i, e in enumerate(entries)
        ]
    output = list(entries)
    if any(e == -1 for e in entries if not isinstance(e, Dim)):
        place = next(i for i, e in enumerate(entries) if not isinstance(e, Dim) and e == -1)
        output[place] = _rest(shape, [e for i, e in enumerate(entries) if i != place])
        if output[place] is None:
            return _write(shape, entries, allowzero, place), None
        return _write(shape, output, allowzero, place), output
    return _write(shape, output, allowzero, None), output


def _rest(shape: Shape | None, others: Shape) -> Element | None:
    """What -1 stands for, or None."""
    if shape is None:
        return None
    try:
        quotient = divide(product(shape), product(others), integer=True)
    except Unknown:
        return None
    return quotient


def _write(shape: Shape | None, entries: Shape, allowzero: bool, place: int | None) -> Array | None:
    """Entries as int64 with at most one -1; `place` is where the file had it."""
    out, unknown = [], []
    for i, entry in enumerate(entries):
        if not isinstance(entry, Dim):
            out.append(int(entry))
            if entry == -1:
                unknown.append(i)
        elif not allowzero and shape is not None and i < len(shape) and shape[i] == entry:
            out.append(0)
        else:
            out.append(-1)
            unknown.append(i)
    if len(unknown) > 1 or (unknown and 0 in [e for e in entries if not isinstance(e, Dim)]):
        return None
    return np.array(out, dtype=np.int64)


def copies(shape: Shape | None, target: Array) -> bool:
    """Whether a Reshape target without a literal 0 is a constant when 0 may stand for the input's dimension."""
    literal = any(not isinstance(v, Dim) and v == 0 for v in map(_item, target))
    written = None if literal else reshape(shape, target, False)[0]
    return written is not None and bool((written == 0).any())


def follower(target: Array) -> int | None:
    """The entry of a Reshape target, known in part, that had better be -1; None if there is none.

    It is the first that is a number above 1, or that many times an unknown one: of heads and head size the
    heads. The data decide on it then, and may have fewer channels.
    """
    entries = [_item(v) for v in target]
    if any(not isinstance(e, Dim) and e < 1 for e in entries):
        return None
    several = (i for i, e in enumerate(entries) if (e.coefficient if isinstance(e, Dim) else e) > 1)
    return next(several, None)


def expand(shape: Shape | None, target: Array) -> tuple[Array | None, Shape | None]:
    """The constant target, and the output's shape, of an Expand; None for what cannot be said."""
    if shape is None:
        return None, None
    entries = [_item(v) for v in target]
    rank = max(len(entries), len(shape))
    wanted = [1] * (rank - len(entries)) + entries
    own = [1] * (rank - len(shape)) + list(shape)
    written: list[int] | None = []
    entry: int | None
    output: list[Element] = []
    for want, have in zip(wanted, own, strict=True):
        if want == have or (not isinstance(want, Dim) and want == 1):
            output.append(have)
            entry = 1
        elif have == 1:
            output.append(want)
            entry = None if isinstance(want, Dim) else int(want)
        elif isinstance(want, Dim) and isinstance(have, Dim):
            return None, None
        else:  # one is a number above 1, so it is the result
            output.append(have if isinstance(want, Dim) else want)
            entry = None if isinstance(want, Dim) else int(want)
        written = None if written is None or entry is None else [*written, entry]
    return None if written is None else np.array(written, dtype=np.int64), output


def own_lengths(shape: Shape | None, target: Array) -> Array | None:
    """True where a target of Expand, known in part, asks for the length that the input has there anyway.

    None when there is no such entry, or it says 1 (keep) already.
    """
    if shape is None:
        return None
    own = [1] * max(len(target) - len(shape), 0) + list(shape)
    entries = [_item(v) for v in target]
    same = [
        not isinstance(want, Dim) and want == have and want != 1
        for want, have in zip(entries, own[len(own) - len(entries) :], strict=True)
    ]
    return np.array(same) if any(same) else None


def slice_ends(shape: Shape | None, ends: Array, axes: Sequence[int]) -> Array | None:
    """The constant ends of a Slice with positive steps, or None."""
    if shape is None:
        return None
    out = []
    for end, axis in zip(ends, axes, strict=True):
        end = _item(end)
        if isinstance(end, Dim):
            if shape[axis] != end:
                return None
            end = ALL
        out.append(int(end))
    return np.array(out, dtype=np.int64)


def resize_scales(shape: Shape | None, sizes: Array) -> Array | None:
    """Scales that give exactly `sizes`, where each quotient is exact in float32; or None."""
    if shape is None or len(shape) != len(sizes):
        return None
    out = []
    for size, have in zip(sizes, shape, strict=True):
        size = _item(size)
        try:
            scale = 1.0 if size == have else divide(size, have, integer=False)
        except Unknown:
            return None
        if isinstance(scale, Dim) or scale <= 0 or float(np.float32(scale)) != float(scale):
            return None
        if not isinstance(have, Dim) and float(np.float32(scale)) * have != size:
            return None
        out.append(float(scale))
    return np.array(out, dtype=np.float32)


def _item(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
