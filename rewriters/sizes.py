"""Sizes of a network's inputs, each computed once.

Exporters ask the tensor at hand for its batch and length, over and over. What is the same product of the inputs'
sizes can be read from them instead: then it is not a size of the layer that happened to be asked.
"""

from __future__ import annotations

from typing import Any

import onnx
from numpy.typing import NDArray


class Sizes:
    """The first tensor with each value that is known in part, among those made of the inputs' sizes alone."""

    def __init__(self) -> None:
        self._first: dict[tuple[Any, ...], str] = {}
        self._inner: set[str] = set()

    def first(self, node: onnx.NodeProto, element: int, value: NDArray[Any] | None) -> str | None:
        """What to read instead of the one output of `node`; None if there is nothing better. Nodes come in order.

        `value` is what is known of it, of this element type; None when it is not known so well.
        """
        outer = value is not None and self._inner.isdisjoint(node.input)
        if not outer:
            self._inner.update(node.output)
        if value is None:
            return None
        key = (element, value.shape, *value.reshape(-1).tolist())
        if outer:
            self._first.setdefault(key, node.output[0])
        found = self._first.get(key)
        return None if found == node.output[0] else found
