"""The same network, whoever exported it: both exporters of torch, several opsets, static or dynamic batch."""

from __future__ import annotations

import io
import warnings
from typing import Any

import onnx
import pytest
import torch

from onnxnas import analysis, graph
from tests.analysis.torch_networks import NETWORKS

TORCHSCRIPT = (11, 13, 17, 20)
DYNAMO = (18, 20, 21)


def exported(name: str, opset: int, dynamic: bool, dynamo: bool) -> onnx.ModelProto:
    torch.manual_seed(0)
    network = NETWORKS[name]().eval()
    x = torch.randn(2 if dynamic else 1, 3, 32, 32)
    options: dict[str, Any] = {"input_names": ["x"], "output_names": ["y"], "opset_version": opset}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            shapes = {"dynamic_shapes": ({0: torch.export.Dim("n")},)} if dynamic else {}
            program = torch.onnx.export(network, (x,), dynamo=True, verbose=False, **options, **shapes)
            assert program is not None
            return program.model_proto
        stream = io.BytesIO()
        axes = {"x": {0: "n"}, "y": {0: "n"}} if dynamic else None
        torch.onnx.export(
            network,
            (x,),
            stream,
            dynamo=False,
            dynamic_axes=axes,
            training=torch.onnx.TrainingMode.EVAL,
            do_constant_folding=True,
            **options,
        )
    return onnx.load_from_string(stream.getvalue())


def found(model: onnx.ModelProto) -> tuple[Any, Any]:
    """(blocks by kind and chain, sizes of the width groups with the number of those that make and read them)."""
    seen = analysis.analyse(graph.load(model))
    chains: dict[int, list[str]] = {}
    for block in seen.blocks:
        chains.setdefault(block.chain, []).append(block.kind)
    groups = sorted((g.size, len(g.choices), len(g.producers)) for g in seen.groups)
    return list(chains.values()), groups


@pytest.mark.parametrize("name", NETWORKS)
def test_opsets_and_batches_of_torchscript(name: str) -> None:
    expected = found(exported(name, TORCHSCRIPT[-1], False, dynamo=False))
    assert expected[1]
    for opset in TORCHSCRIPT:
        for dynamic in (False, True):
            if name == "encoder" and opset < 14:
                continue  # the exporter has no attention before opset 14
            assert found(exported(name, opset, dynamic, dynamo=False)) == expected, (opset, dynamic)


@pytest.mark.parametrize("name", NETWORKS)
def test_both_exporters(name: str) -> None:
    expected = found(exported(name, 20, False, dynamo=False))
    for opset in DYNAMO:
        for dynamic in (False, True):
            assert found(exported(name, opset, dynamic, dynamo=True)) == expected, (opset, dynamic)


def test_what_is_expected_is_there() -> None:
    """By hand: what these four networks can do without."""
    blocks, groups = found(exported("residual", 17, True, dynamo=False))
    assert blocks == [["residual"], ["residual"]]
    assert [size for size, *_ in groups] == [16, 16, 32, 32, 32]  # two streams, three inner widths
    blocks, groups = found(exported("mobile", 17, True, dynamo=False))
    assert blocks == [["residual", "residual"]]
    # the stream, the classifier's hidden layer; in each block its expanded and its squeezed width
    assert [size for size, *_ in groups] == [16, 16, 16, 32, 64, 64]
    blocks, groups = found(exported("encoder", 17, True, dynamo=False))
    assert blocks == [["attention", "feed_forward", "attention", "feed_forward"]]
    assert [size for size, *_ in groups] == [4, 4, 32, 128, 128]  # heads, embedding, feed-forward
    _, groups = found(exported("dense", 17, True, dynamo=False))
    assert [size for size, *_ in groups] == [16, 16]  # the shuffle ties the two convolutions; the one below
