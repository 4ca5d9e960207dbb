"""A model in parts against what protobuf itself writes and reads."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as some
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnxnas.graph import load, rewrite, rewritten
from onnxnas.testing import graphs
from rewriters import Parts, ReplaceConstant, Rewritten, SetInitializer, apply, fold_all, parts
from tests.rewriters.build import floats, model, residual
from tests.space.test_plan import build

KINDS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")


def structure() -> onnx.ModelProto:
    out = model([helper.make_node("Relu", ["x"], ["y"])], {"x": ["N", 3]}, ["y"], {})
    out.doc_string = "described"
    out.metadata_props.add(key="author", value="me")
    return out


def weights(proto: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    return {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    array=st.sampled_from(KINDS).flatmap(
        lambda kind: some.arrays(np.dtype(kind), some.array_shapes(min_dims=0, max_dims=4, min_side=0))
    ),
    turned=st.booleans(),
)
def test_arrays_of_all_kinds(array: NDArray[Any], turned: bool) -> None:
    array = array.T if turned else array
    made = Parts(structure(), {"w": array})
    content = made.to_bytes()
    read = onnx.load_model_from_string(content)
    assert read == made.proto()
    assert len(content) == read.ByteSize()
    np.testing.assert_array_equal(weights(read)["w"], array)
    assert weights(read)["w"].dtype == array.dtype


@pytest.mark.parametrize("size", [0, 1, 100, 119, 120, 127, 128, 16_300, 16_383, 16_384, 2_097_152])
def test_lengths_of_every_width(size: int) -> None:
    array = np.arange(size, dtype=np.uint8)
    read = onnx.load_model_from_string(Parts(structure(), {"w": array}).to_bytes())
    np.testing.assert_array_equal(weights(read)["w"], array)


def test_tensors_as_the_file_has_them_stay_so(rng: np.random.Generator) -> None:
    array = floats(rng, 4, 3)
    described, elsewhere = numpy_helper.from_array(array, "described"), TensorProto(name="elsewhere")
    described.doc_string = "kept"
    elsewhere.CopyFrom(TensorProto(name="elsewhere", data_type=TensorProto.FLOAT, dims=[2]))
    elsewhere.data_location = TensorProto.EXTERNAL
    elsewhere.external_data.add(key="location", value="weights.bin")
    tensors = [
        numpy_helper.from_array(array, "raw"),
        helper.make_tensor("typed", TensorProto.FLOAT, [4, 3], array.reshape(-1)),
        helper.make_tensor("half", TensorProto.BFLOAT16, [2], [1.0, 2.0]),
        helper.make_tensor("text", TensorProto.STRING, [2], [b"a", b"b"]),
        described,
        elsewhere,
    ]
    whole = structure()
    whole.graph.initializer.extend(tensors)
    for read in ({}, {"raw": array, "typed": array, "described": array}):
        made = Parts.of(whole, read)
        assert list(made.proto().graph.initializer) == tensors
        assert list(onnx.load_model_from_string(made.to_bytes()).graph.initializer) == tensors


def test_a_message_that_protobuf_could_not_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_LARGEST", 1000)
    with pytest.raises(ValueError, match="external data"):
        Parts(structure(), {"w": np.zeros(1000, np.uint8)}).to_bytes()


@pytest.mark.parametrize("name", sorted(graphs.NETWORKS))
def test_sub_networks_in_parts_are_those_made_whole(name: str) -> None:
    space = build(graphs.NETWORKS[name]())
    rng = np.random.default_rng(3)
    for subnet in (space.maximal(), space.minimal(), space.random(rng), space.random(rng)):
        whole = rewrite(space.graph, space.plan(subnet))
        made = rewritten(space.graph, space.plan(subnet))
        assert onnx.load_model_from_string(made.to_bytes()) == whole
        folded, in_parts = fold_all(whole), fold_all(made)
        assert isinstance(folded, Rewritten)
        assert isinstance(in_parts, Rewritten)
        assert onnx.load_model_from_string(in_parts.parts.to_bytes()) == folded.model
        assert in_parts.done == folded.done


def test_edits_of_parts_copy_no_weight(rng: np.random.Generator) -> None:
    full, new = residual(rng, 3, 5, 1), floats(rng, 3, 5, 3, 3)
    result = apply(Parts.of(full), [SetInitializer("b0.w2", new)])
    assert isinstance(result, Rewritten)
    assert result.parts.weights["b0.w2"] is new
    stored = {t.name: t for t in full.graph.initializer}
    assert result.parts.weights["b0.w1"] is stored["b0.w1"]


def test_a_graph_that_was_closed_holds_no_weight(rng: np.random.Generator) -> None:
    full, new, wide = residual(rng, 3, 5, 1), floats(rng, 3, 5, 3, 3), np.arange(5.0, dtype=np.float32)
    held = [weakref.ref(new), weakref.ref(wide)]
    edits = [SetInitializer("b0.w2", new), ReplaceConstant("b0.conv1", 2, wide)]
    gc.disable()
    try:
        result = apply(Parts.of(full), edits)
        assert isinstance(result, Rewritten)
        assert new is result.parts.weights["b0.w2"]
        del result, edits, new, wide
        assert [reference() for reference in held] == [None, None]
    finally:
        gc.enable()


def test_a_loaded_graph_is_as_it_was_afterwards() -> None:
    graph = load(graphs.resnet(blocks=(2,), channels=(8,)))
    before = graph.model.SerializeToString(deterministic=True)
    space = build(graphs.resnet(blocks=(2,), channels=(8,)))
    rewritten(graph, space.plan(space.minimal())).to_bytes()
    assert graph.model.SerializeToString(deterministic=True) == before
