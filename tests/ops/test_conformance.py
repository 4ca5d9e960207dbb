"""Every operator of the table through the conformance kit."""

from __future__ import annotations

import pytest

from onnxnas.ops.registry import registered
from onnxnas.testing.operators import OperatorCase, check_case
from tests.ops.cases import CASES


@pytest.mark.parametrize("case", CASES, ids=[f"{i}-{c.name}" for i, c in enumerate(CASES)])
def test_operator(case: OperatorCase) -> None:
    check_case(case)


def test_every_operator_has_a_case() -> None:
    seen = {node.op_type for case in CASES for node in case.model().graph.node}
    assert {spec.op_type for spec in registered()} - seen == {
        "Swish"
    }  # Swish: opset 24, newer than the runtime
