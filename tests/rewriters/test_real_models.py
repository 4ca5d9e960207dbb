"""The canonical form of real exports computes what the file computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from rewriters import Rewritten, apply, canonicalise, fold_all
from tests.rewriters.build import Array, close, run

Zoo = Callable[[str], onnx.ModelProto]


def feeds(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}


@pytest.mark.parametrize(
    ("name", "shape", "most"),
    [
        pytest.param("ts_swin_t", (1, 3, 224, 224), 600, marks=pytest.mark.slow),
        ("ts_resnet50", (1, 3, 224, 224), 180),
        ("ts_ghostnet_100", (2, 3, 224, 224), 290),
        pytest.param("timm_nfnet_l0", (1, 3, 224, 224), 290, marks=pytest.mark.slow),
        ("timm_vit_tiny_patch16_224", (2, 3, 224, 224), 390),
    ],
)
def test_zoo(zoo: Zoo, name: str, shape: tuple[int, ...], most: int) -> None:
    full = zoo(name)
    out = canonicalise(full).model
    assert len(out.graph.node) <= most
    assert not {"Constant", "Identity", "Dropout"} & {n.op_type for n in out.graph.node}
    x = feeds({"x": shape})
    close(run(out, x), run(full, x))


def test_bert(zoo: Zoo) -> None:
    full = zoo("hf_bert")
    out = canonicalise(full).model
    ids = np.random.default_rng(0).integers(0, 100, (1, 16))
    x = {"x": ids, "mask": np.ones((1, 16), np.int64)}
    close(run(out, x), run(full, x))


def test_batchnorm_of_a_real_export_folds_and_comes_out_again(zoo: Zoo) -> None:
    """The exporter merged the ones and zeros of all BatchNormalizations; parted, each can be folded."""
    full = canonicalise(zoo("ts_resnet18")).model
    folded = fold_all(full)
    assert isinstance(folded, Rewritten)
    assert len(folded.done) == 20
    assert not any(line.startswith("kept") for line in folded.done)
    assert "BatchNormalization" not in {n.op_type for n in folded.model.graph.node}
    x = feeds({"x": (1, 3, 224, 224)})
    close(run(folded.model, x), run(full, x))


@pytest.mark.parametrize(
    ("name", "inputs", "most"),
    [
        ("ppocr_en_number_rec", {"x": (2, 3, 32, 96)}, 240),
        ("ppocr_mobile_v2_det", {"x": (1, 3, 64, 96)}, 230),
        ("ultraface_slim320", {"input": (1, 3, 240, 320)}, 140),
        ("silero_vad_16k_op15", {"input": (3, 576), "state": (2, 3, 128)}, 60),
        ("dtln_1", {"input_2": (1, 1, 257), "input_3": (1, 2, 128, 2)}, 36),
    ],
)
def test_files_from_the_wild(
    shared: Path, name: str, inputs: Mapping[str, tuple[int, ...]], most: int
) -> None:
    full = onnx.load(shared / "data" / "onnx" / f"{name}.onnx")
    canonical = canonicalise(full).model
    assert len(canonical.graph.node) <= most
    x: dict[str, Any] = feeds(inputs)
    if name.startswith("silero"):
        x["sr"] = np.array(16000)
    close(run(canonical, x), run(full, x))
    reopened = apply(canonical, [])
    assert isinstance(reopened, Rewritten)
    close(run(reopened.model, x), run(full, x))
