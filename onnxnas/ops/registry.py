"""Operators by (domain, name, since_version); the newest entry not newer than the node's version answers."""

from __future__ import annotations

from onnxnas.ops.spec import OpSpec
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


def registered() -> tuple[OpSpec, ...]:
    """Every entry, for the conformance kit and the documentation."""
    return tuple(spec for versions in _TABLE.values() for spec in versions.values())
