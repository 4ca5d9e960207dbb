"""Messages between the measuring process and its parent: a JSON header and raw arrays, no pickle.

A frame is `magic, header length (u32), body length (u64), header, body`. The header's `arrays` lists
name, dtype and shape of the arrays whose bytes follow one another in the body.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from onnxnas.measure.runtime import Array

MAGIC = b"onnxnas1"
PREFIX = struct.Struct("<8sIQ")
MAX_HEADER = 16 << 20


class FrameError(Exception):
    """The bytes are not a frame."""


def encode(header: Mapping[str, Any], arrays: Mapping[str, Array]) -> list[memoryview]:
    """The pieces of a frame, to be written in order. Raises FrameError for an array that has no plain bytes."""
    listing, pieces = [], []
    for name, array in arrays.items():
        if array.dtype.kind not in "biufc":
            raise FrameError(f"array {name!r} has dtype {array.dtype}; only numbers and booleans can be sent")
        listing.append({"name": name, "dtype": array.dtype.str, "shape": list(array.shape)})
        pieces.append(memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data))
    text = json.dumps({**header, "arrays": listing}).encode()
    body = sum(piece.nbytes for piece in pieces)
    return [memoryview(PREFIX.pack(MAGIC, len(text), body)), memoryview(text), *pieces]


def lengths(prefix: bytes, max_body: int) -> tuple[int, int]:
    """Header and body length. Raises FrameError for a wrong magic or a length above what is allowed."""
    magic, header, body = PREFIX.unpack(prefix)
    if magic != MAGIC:
        raise FrameError(f"expected a frame, got {prefix[:16]!r}")
    if header > MAX_HEADER or body > max_body:
        raise FrameError(f"a frame of {header} + {body} bytes is larger than allowed")
    return header, body


def decode(text: bytes, body: memoryview) -> tuple[dict[str, Any], dict[str, Array]]:
    """The header and the arrays (read-only views of `body`). Raises FrameError when they do not fit."""
    try:
        header = json.loads(text)
        arrays: dict[str, Array] = {}
        at = 0
        for item in header["arrays"]:
            dtype, shape = np.dtype(item["dtype"]), tuple(int(n) for n in item["shape"])
            if dtype.kind not in "biufc" or any(n < 0 for n in shape):
                raise FrameError(f"array {item['name']!r} has dtype {dtype} and shape {shape}")
            size = math.prod(shape) * dtype.itemsize
            arrays[str(item["name"])] = np.frombuffer(body[at : at + size], dtype).reshape(shape)
            at += size
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FrameError(f"the frame's header is damaged: {error}") from error
    if at != body.nbytes:
        raise FrameError(f"the frame's body has {body.nbytes} bytes, its arrays {at}")
    return header, arrays
