"""What can change in a model and what cannot, and why: the document of `onnxnas inspect`.

Needs no torch, no data and no runtime; seconds even for thousands of nodes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnxnas import analysis, graph, space
from onnxnas.types import Subnet

if TYPE_CHECKING:
    from pathlib import Path

    from onnx import ModelProto


@dataclass(frozen=True, eq=False)
class Inspection:
    """A model, what analysis found in it, and the search space of all of that."""

    graph: graph.Graph
    analysis: analysis.Analysis
    space: space.SearchSpace
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The document of `onnxnas inspect --json` (schema 1)."""
        whole = self.space.cost(Subnet())
        return {
            "schema": 1,
            "model": _model(self.graph),
            "macs": whole.macs,
            "params": whole.params,
            "blocks": self._blocks(),
            "width_groups": [
                {
                    "id": group.id,
                    "name": group.name,
                    "size": group.size,
                    "choices": list(group.choices),
                    "producers": list(group.producers),
                    "consumers": list(group.consumers),
                }
                for group in self.space.groups
            ],
            "kernels": [
                {"id": k.id, "node": k.node, "size": list(k.size), "choices": [list(c) for c in k.choices]}
                for k in self.space.kernels
            ],
            "frozen": [{"node": f.node, "what": f.what, "reason": f.reason} for f in self.analysis.frozen],
            "log10_subnetworks": self.space.size_log10,
            "seconds": round(self.seconds, 3),
        }

    def _blocks(self) -> list[dict[str, Any]]:
        costs = self.space.block_costs()
        return [
            {
                "id": block.id,
                "name": block.name,
                "entry": block.entry,
                "exit": block.exit,
                "nodes": list(block.nodes),
                "kind": block.kind,
                "chain": block.chain,
                "macs": costs[block.id].macs,
                "params": costs[block.id].params,
            }
            for block in self.space.blocks
        ]


def inspect(
    model: str | Path | ModelProto, *, shapes: Mapping[str, Sequence[int]] | None = None
) -> Inspection:
    """Load and analyse a model. Raises ModelError when it cannot be used."""
    began = time.perf_counter()
    loaded = graph.load(model, shapes=shapes)
    found = analysis.analyse(loaded)
    built = space.build(found)
    return Inspection(loaded, found, built, time.perf_counter() - began)


def _model(loaded: graph.Graph) -> dict[str, Any]:
    def described(names: Sequence[str]) -> list[dict[str, Any]]:
        infos = [loaded.tensors[name] for name in names]
        return [
            {
                "name": info.name,
                "shape": list(info.declared if info.declared is not None else info.shape or ()),
                "dtype": None if info.dtype is None else str(info.dtype),
            }
            for info in infos
        ]

    return {
        "path": loaded.source.get("path"),
        "sha256": loaded.digest,
        "opset": loaded.opset,
        "producer": loaded.source.get("producer"),
        "inputs": described(loaded.inputs),
        "outputs": described(loaded.outputs),
    }
