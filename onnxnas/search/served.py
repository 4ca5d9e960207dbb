"""How a sub-network is served, searched together with what it is: threads, batch, settings of the runtime.

The fastest network on one thread need not be the fastest on two, nor the best batch of a small network that of a large
one, so that settings tuned afterwards may come too late. The dimensions of a space are followed by those of serving;
`Subnet.serving` has what differs from the target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onnxnas.search.derived import Extended
from onnxnas.search.problem import Space
from onnxnas.types import Subnet

KIND = "serving"


class ServedSpace(Extended):
    """A space whose sub-networks are also served in different ways; the first of each is the target's own."""

    def __init__(self, space: Space, choices: Mapping[str, Sequence[Any]]) -> None:
        super().__init__(space, KIND, choices)
        self._target = {name: values[0] for name, values in choices.items()}

    def told(self, subnet: Subnet) -> Mapping[str, Any]:
        return subnet.serving

    def with_told(self, subnet: Subnet, values: Mapping[str, Any]) -> Subnet:
        return subnet.served({name: value for name, value in values.items() if value != self._target[name]})
