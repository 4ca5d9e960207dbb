"""Operators by (domain, name, since_version); the newest entry not newer than the node's version answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from onnxnas.errors import ModelError
from onnxnas.ops.spec import BatchNorm, OpSpec, TorchFunction
from onnxnas.types import Node

_TABLE: dict[tuple[str, str], dict[int, OpSpec]] = {}


def register(*specs: OpSpec) -> None:
    """Add operators. Raises ValueError when an entry exists: nothing is overwritten."""
    for spec in specs:
        versions = _TABLE.setdefault((spec.domain, spec.op_type), {})
        if spec.since in versions:
            raise ValueError(
                f"operator {spec.domain or 'onnx'}.{spec.op_type} since {spec.since} is registered already"
            )
        versions[spec.since] = spec


def resolve(node: Node) -> OpSpec | None:
    """The entry for this node's operator at its version, or None when it is unknown."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    versions = _TABLE.get((domain, node.op_type))
    if versions is None:
        return None
    known = [since for since in versions if since <= node.version]
    return versions[max(known)] if known else None


def torch_function(node: Node, constants: Mapping[int, NDArray[Any]], mode: BatchNorm) -> TorchFunction:
    """The torch function of a node: of the tensors that it reads, in the order of `Node.reads`.

    `constants` are those of them that are known and not trained, by position. Raises ModelError when there is none.
    """
    spec = resolve(node)
    if spec is None or spec.torch is None:
        raise ModelError(
            f"node {node.name!r}: operator {node.op_type} (version {node.version}) has no torch function; "
            "the model can be pruned and measured, but not trained"
        )
    return spec.torch(node, constants, mode)


def registered() -> tuple[OpSpec, ...]:
    """Every entry, for the conformance kit and the documentation."""
    return tuple(spec for versions in _TABLE.values() for spec in versions.values())
