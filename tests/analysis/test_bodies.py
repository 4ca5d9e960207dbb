"""What the bodies of If and Loop hold is reported."""

from __future__ import annotations

import onnx
import pytest

from onnxnas import graph
from onnxnas.analysis.analyse import analyse
from onnxnas.testing import graphs
from tests.ops.cases_control import branches, rounds


@pytest.mark.parametrize(("model", "kind"), [(branches(), "If"), (rounds(), "Loop")])
def test_a_layer_inside_a_body_is_named(model: onnx.ModelProto, kind: str) -> None:
    """Each holds one matrix product with a weight; what is outside is not counted."""
    loaded = graph.load(model)
    (node,) = [node for node in loaded.nodes if node.op_type == kind]
    found = [f for f in analyse(loaded).frozen if "body" in f.reason]
    assert [(f.node, f.what) for f in found] == [(node.name, "1 layer")]
    assert f"body of {kind}" in found[0].reason


def test_a_network_without_bodies_has_none() -> None:
    assert not [f for f in analyse(graph.load(graphs.resnet())).frozen if "body" in f.reason]
