"""What other tools' published tests, and arithmetic, say about well-known networks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import onnx
import pytest

from onnxnas import space as spaces
from onnxnas.analysis import Analysis, analyse
from onnxnas.graph import load
from onnxnas.types import Subnet

Zoo = Callable[[str], onnx.ModelProto]

RESIDUAL = {
    "tv_resnet18": [2, 1, 1, 1],
    "ts_resnet18": [2, 1, 1, 1],
    "tv_resnet50": [2, 3, 5, 2],
    "ts_resnet50": [2, 3, 5, 2],
    "hf_resnet": [2, 3, 5, 2],
    "tv_mobilenet_v2": [1, 2, 3, 2, 2],
    "ts_mobilenet_v2": [1, 2, 3, 2, 2],
    "tv_efficientnet_b0": [1, 1, 2, 2, 3],
    "tv_mobilenet_v3_small": [1, 2, 1, 2],
    "ts_mobilenet_v3_small": [1, 2, 1, 2],
}
GROUPS = {
    "tv_resnet18": 12,
    "tv_resnet50": 37,
    "ts_resnet50": 37,
    "tv_mobilenet_v2": 25,
    "ts_mobilenet_v2": 25,
    "tv_densenet121": 120,
    "ts_densenet121": 120,
}
TRANSFORMERS = ["tv_vit_b_16", "hf_vit", "hf_bert", "tv_swin_t", "ts_swin_t"]


def analysed(zoo: Zoo, name: str) -> Analysis:
    return analyse(load(zoo(name)))


@pytest.mark.parametrize("name", RESIDUAL)
def test_residual_blocks_and_their_chains(zoo: Zoo, name: str) -> None:
    analysis = analysed(zoo, name)
    assert list(Counter(b.chain for b in analysis.blocks).values()) == RESIDUAL[name]
    assert {b.kind for b in analysis.blocks} == {"residual"}
    if name in GROUPS:
        assert len(analysis.groups) == GROUPS[name]


@pytest.mark.parametrize("name", ["tv_densenet121", "ts_densenet121"])
def test_dense_blocks_have_a_group_for_every_convolution(zoo: Zoo, name: str) -> None:
    analysis = analysed(zoo, name)
    assert (len(analysis.groups), analysis.blocks) == (GROUPS[name], ())


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers_skip_attention_and_feed_forward(zoo: Zoo, name: str) -> None:
    analysis = analysed(zoo, name)
    assert Counter(b.kind for b in analysis.blocks) == {"attention": 12, "feed_forward": 12}
    kinds = [b.kind for b in analysis.blocks]
    assert kinds == ["attention", "feed_forward"] * 12


def test_a_vit_has_twelve_heads_in_every_layer(zoo: Zoo) -> None:
    sizes = Counter(g.size for g in analysed(zoo, "tv_vit_b_16").groups)
    assert sizes == {12: 12, 3072: 12, 768: 1}


def test_mobilenet_v2_costs_what_it_costs(zoo: Zoo) -> None:
    space = spaces.build(analysed(zoo, "tv_mobilenet_v2"))
    assert (space.cost(Subnet()).macs, space.cost(Subnet()).params) == (300_774_272, 3_469_760)
    ids = {b.name.removesuffix(".conv"): b.id for b in space.blocks}
    without = space.cost(Subnet(frozenset({ids["features.3"], ids["features.5"]})))
    assert (without.macs, without.params) == (264_045_440, 3_447_536)


def test_both_exporters_give_the_same_blocks_and_groups(zoo: Zoo) -> None:
    for architecture in ("resnet50", "mobilenet_v2", "mobilenet_v3_small", "densenet121", "swin_t"):
        old, new = (spaces.build(analysed(zoo, f"{p}_{architecture}")) for p in ("ts", "tv"))
        assert [b.kind for b in old.blocks] == [b.kind for b in new.blocks]
        assert [b.chain for b in old.blocks] == [b.chain for b in new.blocks]
        assert sorted(g.choices for g in old.groups) == sorted(g.choices for g in new.groups), architecture
        assert old.cost(Subnet()) == new.cost(Subnet())
        assert old.cost(old.minimal()) == new.cost(new.minimal())
