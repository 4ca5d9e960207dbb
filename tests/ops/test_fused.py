"""Fused operators are understood as what they were fused of."""

from __future__ import annotations

import pytest

from onnxnas.analysis import analyse
from onnxnas.graph import load
from onnxnas.testing.operators import OperatorCase, check_case
from tests.ops.cases_fused import APART, embedded, fused_conv, skipping
from tests.ops.networks import image, tokens


@pytest.mark.parametrize("case", APART, ids=[c.name for c in APART])
def test_it_computes_what_the_runtime_computes(case: OperatorCase) -> None:
    assert any(node.domain for node in case.model().graph.node)
    check_case(case)
    left = {node.op_type for node in load(case.model()).nodes if node.domain}
    assert left <= {"MultiHeadAttention"}


def test_what_is_behind_a_sum_is_skipped_with_it() -> None:
    found = analyse(load(skipping()()))
    assert [(block.kind, len(block.nodes)) for block in found.blocks] == [("feed_forward", 6)] * 2


def test_a_residual_inside_a_convolution_is_a_block() -> None:
    found = analyse(load(image(fused_conv("Relu", residual=True))()))
    assert [[n.rsplit("_")[-1] for n in block.nodes] for block in found.blocks] == [["Conv", "Add", "Relu"]]


def test_positions_that_are_not_given_count_from_zero() -> None:
    operators = [node.op_type for node in load(tokens(embedded(False))()).nodes]
    assert operators.count("Gather") == 2
