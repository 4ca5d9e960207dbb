"""Fused operators are understood as what they were fused of."""

from __future__ import annotations

import math

import numpy as np
import pytest

from onnxnas.analysis import analyse
from onnxnas.errors import ModelError
from onnxnas.graph import example_inputs, load
from onnxnas.testing.builder import Builder
from onnxnas.testing.operators import OperatorCase, check_case, run_onnx
from tests.ops.cases_fused import APART, MICROSOFT, embedded, fused_conv, skipping
from tests.ops.networks import image, tokens


@pytest.mark.parametrize("case", APART, ids=[c.name for c in APART])
def test_it_computes_what_the_runtime_computes(case: OperatorCase) -> None:
    check_case(case)
    nodes = load(case.model()).nodes
    assert {node.op_type for node in nodes if node.domain} <= {"MultiHeadAttention"}
    assert case.name.split()[0] not in {node.op_type for node in nodes} - {"LayerNormalization"}


def test_weights_laid_out_for_one_processor_are_refused() -> None:
    model = image(
        lambda b, x: b.add("Conv", x, b.weight("w", b.normal(8, 8, 1, 1)), domain="com.microsoft.nchwc")
    )()
    with pytest.raises(ModelError, match=r"layout of one processor.*ORT_ENABLE_EXTENDED"):
        load(model)


def test_a_model_with_weights_in_blocks_of_bits_is_refused() -> None:
    def middle(b: Builder, x: str) -> str:
        weight, scales = b.weight("w", np.zeros((8, 1, 8), np.uint8)), b.weight("s", np.ones(8))
        return b.add(
            "MatMulNBits", x, weight, scales, shape=(5, 8), K=6, N=8, bits=4, block_size=16, **MICROSOFT
        )

    b = Builder(0)
    with pytest.raises(ModelError, match=r"quantised already.*MatMulNBits"):
        load(b.finish(middle(b, b.input("x", (5, 6)))))


def test_a_single_channel_that_is_broadcast_ties_nothing() -> None:
    gate = tokens(lambda b, x: b.add("Mul", x, b.add("Sigmoid", b.linear(x, 1, "gate"))))
    assert [group.size for group in analyse(load(gate())).groups] == [8]


def test_shapes_that_need_several_passes_are_found() -> None:
    """What is behind an operator that onnx does not know, is read and decides on a shape, three times over."""

    def middle(b: Builder, x: str) -> str:
        for step in range(3):
            x = b.add("QuickGelu", x, **MICROSOFT)
            x = b.add("Reshape", b.add("Relu", x), b.add("Shape", x, shape=()), shape=(5, 8))
            x = b.linear(x, 8, f"fc{step}")
        return x

    model = tokens(middle)()
    del model.graph.value_info[:]
    loaded = load(model)
    assert all(loaded.tensors[output].shape is not None for node in loaded.nodes for output in node.outputs)


def test_what_only_other_processors_have_computes_what_its_text_says() -> None:
    """ONNX Runtime has no kernels for these on a CPU: numpy is the oracle."""
    b = Builder(0)
    x, bias = b.input("x", (5, 8)), b.normal(8)
    split = b.add("BiasSplitGelu", x, b.weight("bias", bias), shape=(5, 4), **MICROSOFT)
    added = b.add("BiasAdd", x, b.weight("bias", bias), b.input("skip", (5, 8)), **MICROSOFT)
    loaded = load(b.finish(split, added))
    feeds = example_inputs(loaded)
    left, right = np.split(feeds["x"] + bias, 2, axis=-1)
    gelu = right / 2 * (1 + np.vectorize(math.erf)(right / math.sqrt(2)))
    found = run_onnx(loaded.model, feeds)
    np.testing.assert_allclose(found[0], left * gelu, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[1], feeds["x"] + bias + feeds["skip"], rtol=1e-5)


def test_what_is_behind_a_sum_is_skipped_with_it() -> None:
    found = analyse(load(skipping()()))
    assert [(block.kind, len(block.nodes)) for block in found.blocks] == [("feed_forward", 6)] * 2


def test_a_residual_inside_a_convolution_is_a_block() -> None:
    found = analyse(load(image(fused_conv("Relu", residual=True))()))
    assert [[n.rsplit("_")[-1] for n in block.nodes] for block in found.blocks] == [["Conv", "Add", "Relu"]]


def test_positions_that_are_not_given_count_from_zero() -> None:
    operators = [node.op_type for node in load(tokens(embedded(False))()).nodes]
    assert operators.count("Gather") == 2
