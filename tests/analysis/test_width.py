"""Widths that are offered."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import pytest

from onnxnas.analysis import analyse
from onnxnas.analysis.width import width_choices
from onnxnas.graph import load
from onnxnas.testing import graphs


@pytest.mark.parametrize("size", [2, 3, 5, 8, 12, 16, 20, 24, 32, 40, 64, 100, 144, 768, 2048])
def test_widths_fall_from_the_whole_to_about_a_quarter(size: int) -> None:
    for channels in (1, 64):
        widths = width_choices(size, channels)
        assert widths[0] == size
        assert list(widths) == sorted(set(widths), reverse=True)
        assert 1 <= widths[-1] <= max(size / 2, 1)
        assert abs(widths[-1] - size / 4) <= max(size / 8, 1)


def test_wide_groups_come_in_blocks_and_heads_one_by_one() -> None:
    assert width_choices(64) == (64, 56, 48, 40, 32, 24, 16)
    assert width_choices(16) == (16, 12, 8, 4)
    assert width_choices(12, 64) == (12, 10, 9, 8, 6, 4, 3)


def test_a_head_is_known_to_have_several_channels(zoo: Callable[[str], onnx.ModelProto]) -> None:
    """Although the table of relative positions has one value for each head (Swin)."""
    groups = analyse(load(zoo("timm_swin_tiny_patch4_window7_224"))).groups
    assert (12, 10, 9, 8, 6, 4, 3) in {g.choices for g in groups}


def test_flattening_does_not_hide_that_a_unit_is_one_channel() -> None:
    last = next(g for g in analyse(load(graphs.vgg(channels=(8, 16)))).groups if g.size == 16)
    assert last.choices == width_choices(16)


def test_unknown_operators_freeze_what_they_touch_and_say_so() -> None:
    model = graphs.resnet()
    relu = [n for n in model.graph.node if n.op_type == "Relu"][-1]
    relu.op_type, relu.domain = "Mystery", "example.com"
    model.opset_import.add(domain="example.com", version=1)
    analysis = analyse(load(model))
    reasons = [f.reason for f in analysis.frozen if f.node == relu.name]
    assert reasons == ["operator example.com.Mystery is not in the table"]
    assert 0 < len(analysis.groups) < len(analyse(load(graphs.resnet())).groups)
