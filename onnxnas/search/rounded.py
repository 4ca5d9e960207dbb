"""The numbers of a sub-network, searched together with what it is: floats of 32 bits, integers of 8.

Rounding costs some networks quality and not others, and makes some faster and others slower, so that neither the best
structure nor the best precision is known from the other. `Subnet.precision` says what is not as in the original.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onnxnas.precision import EVERY, FLOATS
from onnxnas.search.derived import Extended
from onnxnas.search.problem import Space
from onnxnas.types import Subnet

KIND = "precision"


class RoundedSpace(Extended):
    """A space whose sub-networks have one of these precisions each."""

    def __init__(self, space: Space, choices: Sequence[str]) -> None:
        super().__init__(space, KIND, {EVERY: tuple(choices)})

    def told(self, subnet: Subnet) -> Mapping[str, Any]:
        return {EVERY: subnet.precision.get(EVERY, FLOATS)}

    def with_told(self, subnet: Subnet, values: Mapping[str, Any]) -> Subnet:
        return subnet.rounded({name: value for name, value in values.items() if value != FLOATS})
