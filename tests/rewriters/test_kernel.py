"""CropKernel: a cropped kernel is the full one with its border set to zero."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from rewriters import CropKernel, Refusal, Rewritten, apply
from tests.rewriters.build import Array, close, floats, model, run, values


def one(op: str, weight: Array, spatial: tuple[int, ...], **attributes: Any) -> onnx.ModelProto:
    channels = weight.shape[1] * attributes.get("group", 1) if op == "Conv" else weight.shape[0]
    nodes = [helper.make_node(op, ["x", "w"], ["y"], "conv", **attributes)]
    return model(nodes, {"x": [1, channels, *spatial]}, ["y"], {"w": weight})


def zero_border(weight: Array, size: tuple[int, ...]) -> Array:
    out = np.zeros_like(weight)
    window: list[Any] = [slice(None)] * 2
    window += [slice((o - k) // 2, (o + k) // 2) for o, k in zip(weight.shape[2:], size, strict=True)]
    out[tuple(window)] = weight[tuple(window)]
    return out


CASES: list[tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ("Conv", (4, 3, 5), (3,), {"pads": [2, 2]}),
    ("Conv", (4, 3, 5), (1,), {"pads": [4, 3], "strides": [2]}),
    ("Conv", (4, 3, 5, 5), (3, 3), {"pads": [2] * 4, "kernel_shape": [5, 5]}),
    ("Conv", (4, 1, 7, 3), (3, 3), {"pads": [3, 1, 3, 1], "group": 4}),
    ("Conv", (4, 3, 5, 5), (3, 1), {"pads": [4] * 4, "dilations": [2, 2], "strides": [2, 1]}),
    ("Conv", (4, 3, 5, 5), (3, 3), {"auto_pad": "SAME_UPPER"}),
    ("Conv", (4, 3, 5, 5), (3, 3), {"auto_pad": "SAME_LOWER"}),
    ("Conv", (2, 3, 3, 3, 3), (1, 3, 1), {"pads": [1] * 6}),
    ("ConvTranspose", (4, 3, 5, 5), (3, 3), {"pads": [2] * 4, "strides": [2, 2]}),
    ("ConvTranspose", (4, 3, 5, 5), (3, 3), {"pads": [1] * 4, "output_padding": [1, 1], "strides": [2, 2]}),
    ("ConvTranspose", (4, 3, 5), (3,), {"auto_pad": "SAME_UPPER", "strides": [1]}),
    ("ConvTranspose", (2, 2, 3, 3, 3), (1, 1, 1), {"pads": [1] * 6, "group": 2}),
]


@pytest.mark.parametrize(("op", "shape", "size", "attributes"), CASES)
def test_equals_the_full_kernel_with_a_zero_border(
    rng: np.random.Generator,
    op: str,
    shape: tuple[int, ...],
    size: tuple[int, ...],
    attributes: dict[str, Any],
) -> None:
    weight, spatial = floats(rng, *shape), (7, 8, 9)[: len(shape) - 2]
    full = one(op, weight, spatial, **attributes)
    result = apply(full, [CropKernel("conv", size)])
    assert isinstance(result, Rewritten)
    assert values(result.model)["w"].shape[2:] == size
    channels = full.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    x = {"x": floats(rng, 1, channels, *spatial)}
    close(run(result.model, x), run(one(op, zero_border(weight, size), spatial, **attributes), x))


@pytest.mark.parametrize("stride", [2, 3])
@pytest.mark.parametrize("extent", [8, 9, 10])
def test_automatic_padding_keeps_the_resolution_at_any_stride(
    rng: np.random.Generator, stride: int, extent: int
) -> None:
    full = one("Conv", floats(rng, 2, 3, 5, 5), (extent, extent), auto_pad="SAME_UPPER", strides=[stride] * 2)
    result = apply(full, [CropKernel("conv", (3, 3))])
    assert isinstance(result, Rewritten)
    x = {"x": floats(rng, 1, 3, extent, extent)}
    assert run(result.model, x)[0].shape == run(full, x)[0].shape


def test_matrix_multiplies_the_flattened_crop(rng: np.random.Generator) -> None:
    weight, matrix = floats(rng, 2, 3, 5, 5), floats(rng, 9, 9)
    result = apply(one("Conv", weight, (7, 7), pads=[2] * 4), [CropKernel("conv", (3, 3), matrix)])
    assert isinstance(result, Rewritten)
    expected = np.einsum("oik,kl->oil", weight[:, :, 1:4, 1:4].reshape(2, 3, 9), matrix)
    close([values(result.model)["w"]], [expected.reshape(2, 3, 3, 3)], 1e-6)


def test_a_weight_shared_by_two_is_cropped_for_one(rng: np.random.Generator) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "first", pads=[1] * 4),
        helper.make_node("Conv", ["a", "w"], ["y"], "second", pads=[1] * 4),
    ]
    full = model(nodes, {"x": [1, 3, 5, 5]}, ["y"], {"w": floats(rng, 3, 3, 3, 3)})
    result = apply(full, [CropKernel("second", (1, 1))])
    assert isinstance(result, Rewritten)
    shapes = {n.name: values(result.model)[n.input[1]].shape for n in result.model.graph.node}
    assert shapes == {"first": (3, 3, 3, 3), "second": (3, 3, 1, 1)}


@pytest.mark.parametrize(
    ("size", "attributes", "reason"),
    [
        ((4, 4), {"pads": [2] * 4}, "cannot be cropped to 4x4"),
        ((7, 7), {"pads": [2] * 4}, "cannot be cropped to 7x7"),
        ((3,), {"pads": [2] * 4}, "cannot be cropped to 3;"),
        ((3, 3), {}, "padding [0, 0, 0, 0] cannot shrink"),
        ((3, 3), {"auto_pad": "VALID"}, "cannot shrink"),
        ((1, 1), {"pads": [1] * 4}, "cannot shrink by [2, 2]"),
    ],
)
def test_refusals(
    rng: np.random.Generator, size: tuple[int, ...], attributes: dict[str, Any], reason: str
) -> None:
    result = apply(one("Conv", floats(rng, 2, 3, 5, 5), (7, 7), **attributes), [CropKernel("conv", size)])
    assert isinstance(result, Refusal)
    assert reason in result.reason
    assert result.node == "conv"


def test_other_refusals(rng: np.random.Generator) -> None:
    full = one("ConvTranspose", floats(rng, 2, 3, 5, 5), (7, 7), auto_pad="SAME_UPPER", strides=[4, 4])
    for proto, edit, reason in [
        (full, CropKernel("conv", (3, 3)), "smaller than the stride"),
        (full, CropKernel("nowhere", (3, 3)), "no single node"),
        (
            one("ConvTranspose", floats(rng, 2, 3, 5, 5), (7, 7), output_shape=[7, 7]),
            CropKernel("conv", (3, 3)),
            "output_shape",
        ),
        (
            one("Conv", floats(rng, 2, 3, 5, 5), (7, 7), pads=[2] * 4),
            CropKernel("conv", (3, 3), np.eye(25)),
            "9x9",
        ),
    ]:
        result = apply(proto, [edit])
        assert isinstance(result, Refusal)
        assert reason in result.reason
