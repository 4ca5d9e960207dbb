"""Fifteen real networks that stand for the families of the zoo: understood, proven equal, and really elastic."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from onnxnas.pipeline.check import check
from onnxnas.pipeline.inspect import inspect

ATTENTION, FEED_FORWARD, RESIDUAL = "attention", "feed_forward", "residual"
LEAST_RATIO = 2.5

# name -> how many blocks of which kinds can be skipped
NETWORKS: dict[str, dict[str, int]] = {
    "ts_resnet18": {RESIDUAL: 5},
    "tv_mobilenet_v2": {RESIDUAL: 10},
    "ts_mobilenet_v3_small": {RESIDUAL: 6},
    "tv_efficientnet_b0": {RESIDUAL: 9},
    "tv_squeezenet1_1": {},
    "ts_densenet121": {},
    "timm_ghostnet_100": {RESIDUAL: 11},
    "timm_mobilenetv4_conv_small": {RESIDUAL: 10},
    "tvseg_lraspp_mobilenet_v3_large": {RESIDUAL: 10},
    "timm_pit_ti_224": {ATTENTION: 12, FEED_FORWARD: 12},
    "timm_mobilevit_xs": {ATTENTION: 9, FEED_FORWARD: 9, RESIDUAL: 2},
    "hf_bert_sdpa": {ATTENTION: 4, FEED_FORWARD: 4},
    "hf_gpt2": {ATTENTION: 4, FEED_FORWARD: 4},
    "hf_llama": {ATTENTION: 4, FEED_FORWARD: 4},
    "hf_whisper_encoder": {ATTENTION: 4, FEED_FORWARD: 4},
}
# real pretrained files: quantisation-free, from other exporters, with If bodies and recurrent layers among them
FILES = ("yolox_nano.onnx", "ppocr_cls.onnx", "silero_vad_16k_op15.onnx")


def proven(model: Any) -> dict[str, Any]:
    told = check(model, samples=4)
    assert told["ok"], told["problems"]
    assert told["identity"]["max_rel"] <= 1e-4
    assert all(row["runs"] for row in told["subnets"])
    return told


@pytest.mark.parametrize("name", NETWORKS)
def test_zoo(zoo: Callable[[str], onnx.ModelProto], name: str) -> None:
    model = zoo(name)
    kinds: dict[str, int] = {}
    for block in inspect(model).space.blocks:
        kinds[block.kind] = kinds.get(block.kind, 0) + 1
    assert kinds == NETWORKS[name]
    told = proven(model)
    assert 1 / min(row["macs_ratio"] for row in told["subnets"]) >= LEAST_RATIO


@pytest.mark.parametrize("name", FILES)
def test_files_found_in_the_wild(shared: Path, name: str) -> None:
    proven(shared / "data" / "onnx" / name)
