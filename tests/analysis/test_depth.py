"""Skippable blocks against networkx's dominators and against removal itself."""

from __future__ import annotations

import networkx as nx
import onnx
import pytest

from onnxnas.analysis.depth import find_blocks
from onnxnas.graph import Graph, load
from onnxnas.testing import graphs
from onnxnas.testing.builder import Builder

END = "the end"


def post_dominators(graph: Graph) -> dict[str, str]:
    """Immediate post-dominator of every node, with one end behind all graph outputs."""
    view = graph.networkx()
    view.add_node(END)
    for output in graph.outputs:
        producer = graph.producer(output)
        assert producer is not None
        view.add_edge(producer.name, END)
    return nx.immediate_dominators(view.reverse(), END)


@pytest.mark.parametrize("name", ["resnet", "resnet_a", "mbconv", "vit", "bert", "resnext"])
def test_all_of_a_block_is_post_dominated_by_its_end(name: str) -> None:
    graph = load(graphs.NETWORKS[name]())
    blocks, _ = find_blocks(graph)
    assert blocks
    above = post_dominators(graph)
    for block in blocks:
        last = graph.producer(block.exit)
        assert last is not None
        for node in block.nodes:
            current = node
            while current != last.name:
                assert current != END, f"{node} reaches an output beside {block.exit}"
                current = above[current]


def joined(b: Builder, x: str, tap: bool) -> tuple[str, str]:
    """x + conv(relu(conv(x))); the inner tensor is handed out when `tap`."""
    inner = b.add("Relu", b.conv(x, 8))
    return b.add("Add", b.conv(inner, 8), x), inner


def test_a_block_whose_inside_is_read_elsewhere_is_refused() -> None:
    b = Builder(0)
    x = b.conv(b.input("x", (3, 8, 8)), 8)
    y, inner = joined(b, x, tap=True)
    graph = load(b.finish(b.head(y), b.head(inner)))
    blocks, refusals = find_blocks(graph)
    assert blocks == ()
    assert ["read elsewhere" in r.reason for r in refusals] == [True]


def test_a_squeeze_and_excite_branch_never_displaces_its_block() -> None:
    b = Builder(0)
    x = b.conv(b.input("x", (3, 8, 8)), 8)
    y = graphs.squeeze_excite(b, b.add("Relu", b.conv(x, 8)), 2)
    graph = load(b.finish(b.head(b.add("Add", b.conv(y, 8), x))))
    (block,), _ = find_blocks(graph)
    types = [graph.node(n).op_type for n in block.nodes]
    assert types.count("Conv") == 4  # two of the block, two of the gate
    assert "Add" in types


def test_a_stage_is_not_a_block() -> None:
    """A long skip around two residual blocks: the blocks are offered, not the stage."""
    b = Builder(0)
    x = b.conv(b.input("x", (3, 8, 8)), 8)
    y, _ = joined(b, x, tap=False)
    z, _ = joined(b, y, tap=False)
    graph = load(b.finish(b.head(b.add("Add", z, x))))
    blocks, _ = find_blocks(graph)
    assert len(blocks) == 2
    assert blocks[0].chain == blocks[1].chain


def test_shortcuts_may_be_scaled_by_constants() -> None:
    b = Builder(0)
    x = b.conv(b.input("x", (3, 8, 8)), 8)
    scaled = b.add("Mul", x, b.weight("s", b.normal(8, 1, 1)))
    graph = load(b.finish(b.head(b.add("Add", b.conv(x, 8), scaled))))
    (block,), _ = find_blocks(graph)
    producer = graph.producer(block.entry)
    assert producer is not None
    assert producer.op_type == "Conv"


def test_the_whole_network_is_no_block() -> None:
    b = Builder(0)
    x = b.input("x", (3, 8, 8))
    model = b.finish(b.add("Add", b.conv(x, 3), x))
    blocks, refusals = find_blocks(load(model))
    assert blocks == ()
    assert "whole network" in refusals[0].reason


def test_branches_of_other_shape_are_no_shortcut() -> None:
    b = Builder(0)
    x = b.conv(b.input("x", (3, 8, 8)), 8)
    pooled = b.add("GlobalAveragePool", x, shape=(8, 1, 1))
    graph = load(b.finish(b.head(b.add("Add", b.conv(x, 8), pooled))))
    assert find_blocks(graph)[0] == ()


def test_order_of_operands_does_not_matter() -> None:
    model = graphs.resnet()
    swapped = onnx.ModelProto()
    swapped.CopyFrom(model)
    for node in swapped.graph.node:
        if node.op_type == "Add":
            node.input.reverse()
    a, b = (find_blocks(load(m))[0] for m in (model, swapped))
    assert [x.nodes for x in a] == [x.nodes for x in b]
    assert model.SerializeToString() != swapped.SerializeToString()
    assert a
