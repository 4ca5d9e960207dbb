"""Every operator of the table through the conformance kit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from onnxnas import space as spaces
from onnxnas.analysis import analyse
from onnxnas.errors import ModelError
from onnxnas.graph import load
from onnxnas.ops.registry import registered, resolve
from onnxnas.supernet import SuperNetwork
from onnxnas.supernet.batchnorm import BatchNormMode
from onnxnas.testing.operators import OperatorCase, check_case
from onnxnas.types import Node
from tests.ops.cases import CASES
from tests.ops.cases_recurrent import recurrent


@pytest.mark.parametrize("case", CASES, ids=[f"{i}-{c.name}" for i, c in enumerate(CASES)])
def test_operator(case: OperatorCase) -> None:
    check_case(case)


def test_every_operator_has_a_case() -> None:
    seen = {(node.domain, node.op_type) for case in CASES for node in case.model().graph.node}
    missing = {(spec.domain, spec.op_type) for spec in registered()} - seen
    assert not missing


def test_a_norm_over_neighbouring_channels_keeps_their_order() -> None:
    case = next(case for case in CASES if case.name == "LRN")
    assert [group.ordered for group in analyse(load(case.model())).groups] == [True, False]


@pytest.mark.parametrize(
    ("op", "settings"),
    [("RNN", {"activations": ["Elu"]}), ("LSTM", {"clip": 1.0}), ("GRU", {"activations": ["Relu", "Tanh"]})],
)
def test_a_recurrent_layer_with_other_settings_is_refused(op: str, settings: dict[str, Any]) -> None:
    model = recurrent(op, "forward", **settings).model()
    with pytest.raises(ModelError, match="has no torch function"):
        SuperNetwork(spaces.build(analyse(load(model))))


@pytest.mark.parametrize(
    ("op", "settings"),
    [
        ("LpPool", {"kernel_shape": (2, 2)}),
        ("LpPool", {"kernel_shape": (2, 2), "p": 3}),
        ("GlobalLpPool", {}),
        ("LpNormalization", {"axis": 1}),
        ("MeanVarianceNormalization", {}),
        ("ReduceL2", {}),
    ],
)
def test_a_norm_of_zeros_has_a_gradient(op: str, settings: dict[str, Any]) -> None:
    node = Node("n", op, "", 13, ("x",), ("y",), settings)
    spec = resolve(node)
    assert spec is not None
    assert spec.torch is not None
    x = torch.zeros(1, 2, 4, 4, requires_grad=True)
    spec.torch(node, {}, BatchNormMode({}))([x]).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
