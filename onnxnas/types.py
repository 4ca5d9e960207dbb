"""The values that all layers share: frozen, without heavy imports, without behaviour of their own.

Everything else in the package is functions over these.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, ...]


@dataclass(frozen=True)
class TensorInfo:
    """A tensor of the graph.

    `declared` is what the file says: an int, a symbol, or None for each dimension. `shape` has every
    symbol bound (batch 1 and so on) and is None when it could not be inferred.
    """

    name: str
    dtype: np.dtype[Any] | None
    shape: Shape | None
    declared: tuple[int | str | None, ...] | None = None


@dataclass(frozen=True, eq=False)
class Node:
    """An operator call. `name` is unique in the graph; absent optional inputs are ''.

    `attributes` holds Python values: int, float, str, tuples of these, numpy arrays for tensors; a
    sub-graph is a `Subgraph`. `scope` is the module path a person would recognise, if any is known.
    """

    name: str
    op_type: str
    domain: str
    version: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    scope: str = ""

    @cached_property
    def captures(self) -> tuple[str, ...]:
        """The outer tensors that the node's bodies read, sorted."""
        values = self.attributes.values()
        bodies = [body for v in values for body in (v if isinstance(v, tuple) else (v,))]
        return tuple(sorted({name for b in bodies if isinstance(b, Subgraph) for name in b.captures}))

    @property
    def reads(self) -> tuple[str, ...]:
        """Everything that the node reads: its inputs, then what its bodies capture."""
        return (*self.inputs, *self.captures)


@dataclass(frozen=True, eq=False)
class Subgraph:
    """The body of an If, Loop or Scan. `captures` are the outer tensors that it reads, through all levels."""

    captures: frozenset[str]
    nodes: tuple[Node, ...] = ()
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    initializers: Mapping[str, NDArray[Any]] = field(default_factory=dict)


BlockKind = Literal["residual", "attention", "feed_forward", "other"]


@dataclass(frozen=True)
class Block:
    """A region that can be skipped: tensor `exit` is replaced by tensor `entry` (elastic depth)."""

    id: str
    entry: str
    exit: str
    nodes: tuple[str, ...]
    kind: BlockKind
    chain: int
    name: str = ""


@dataclass(frozen=True, eq=False)
class WidthGroup:
    """Interchangeable units that can go, most important first to stay (elastic width).

    A unit is everything that must go together: one channel of a residual stream, one attention head.
    `units` holds the unit numbers (int64, into the labelling of the whole graph, `Analysis.labels`) in
    the order in which they stand in the first tensor that carries them. Units of one group touch the
    same tensors, so that exchanging two of them leaves the network's function as it is, unless
    `ordered` is True: then an operator looks at neighbours along the axis and the order matters.
    """

    id: str
    size: int
    choices: tuple[int, ...]
    units: NDArray[np.int64]
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    ordered: bool = False
    name: str = ""


@dataclass(frozen=True)
class KernelChoice:
    """A convolution whose kernel can shrink; `choices` includes `size`, largest first (elastic kernel)."""

    id: str
    node: str
    size: tuple[int, ...]
    choices: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Frozen:
    """What cannot change, at which node, and why."""

    node: str
    what: str
    reason: str


@dataclass(frozen=True)
class Cost:
    """Of one sample: multiply-accumulates of Conv, Gemm and MatMul; number of float weights."""

    macs: int
    params: int


@dataclass(frozen=True)
class Subnet:
    """A choice. Anything absent keeps its original value. Never changed after it is made.

    `precision` is by node, or by '*' of all that are not named: what has other than the original's numbers.
    `serving` is how it is served, where that is searched too: what differs from the target, see `Target.served`.
    """

    skip: frozenset[str] = frozenset()
    width: Mapping[str, int] = field(default_factory=dict)
    kernel: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    precision: Mapping[str, str] = field(default_factory=dict)
    serving: Mapping[str, Any] = field(default_factory=dict)

    @property
    def structure(self) -> Subnet:
        """The network alone, whatever numbers it has and however it is served."""
        plain = not self.serving and not self.precision
        return self if plain else replace(self, precision={}, serving={})

    def rounded(self, precision: Mapping[str, str]) -> Subnet:
        """The same network with these numbers."""
        return replace(self, precision=dict(precision))

    def served(self, serving: Mapping[str, Any]) -> Subnet:
        """The same network served so."""
        return replace(self, serving=dict(serving))

    def key(self) -> str:
        """A canonical text: equal for equal choices."""
        parts = [
            "skip=" + ",".join(sorted(self.skip)),
            "width=" + ",".join(f"{k}:{v}" for k, v in sorted(self.width.items())),
            "kernel=" + ",".join(f"{k}:{'x'.join(map(str, v))}" for k, v in sorted(self.kernel.items())),
            "precision=" + ",".join(f"{k}:{v}" for k, v in sorted(self.precision.items())),
        ]
        if self.serving:
            parts.append("serving=" + json.dumps(dict(self.serving), sort_keys=True))
        return ";".join(parts)

    def __hash__(self) -> int:
        return hash(self.key())

    def to_json(self) -> dict[str, Any]:
        """The body of a sub-network file (without the model's digest)."""
        served = {"serving": dict(sorted(self.serving.items()))} if self.serving else {}
        return {
            "skip": sorted(self.skip),
            "width": dict(sorted(self.width.items())),
            "kernel": {k: list(v) for k, v in sorted(self.kernel.items())},
            "precision": dict(sorted(self.precision.items())),
            **served,
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Subnet:
        """The inverse of `to_json`; other keys are ignored here and judged by the search space."""
        return cls(
            frozenset(body.get("skip", ())),
            {str(k): int(v) for k, v in body.get("width", {}).items()},
            {str(k): tuple(int(x) for x in v) for k, v in body.get("kernel", {}).items()},
            {str(k): str(v) for k, v in body.get("precision", {}).items()},
            dict(body.get("serving", {})),
        )


#: The names of what a sub-network chooses, as in its file and in tables.
CHOICES = tuple(choice.name for choice in fields(Subnet))


@dataclass(frozen=True)
class Objective:
    """Something to make better. `maximise` False means smaller is better. `limit` is a constraint on it."""

    name: str
    unit: str
    maximise: bool
    limit: float | None = None


@dataclass(frozen=True)
class Measurement:
    """A figure with its 95 % interval; `n` observations; `protocol` says how it was made."""

    value: float
    low: float
    high: float
    n: int
    unit: str
    protocol: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"value": self.value, "lo": self.low, "hi": self.high, "n": self.n, "unit": self.unit}


TrialStatus = Literal["ok", "refused", "crashed", "timeout", "oom", "invalid"]


@dataclass(frozen=True)
class Trial:
    """One evaluated candidate. `values` is by objective name; empty unless `status` is 'ok'."""

    number: int
    subnet: Subnet
    status: TrialStatus
    values: Mapping[str, float]
    measurements: Mapping[str, Measurement] = field(default_factory=dict)
    seconds: float = 0.0
    error: str = ""
    environment: str = ""
