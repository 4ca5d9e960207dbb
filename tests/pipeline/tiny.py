"""A run small enough for a test: an 8 x 8 residual network and labels that it gives itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import yaml
from numpy.typing import NDArray

from onnxnas.testing import graphs

SETTINGS: dict[str, Any] = {
    "time_budget": None,
    "objectives": ["macs"],
    "train": {
        "epochs": 1,
        "batch_size": 32,
        "eval_images": 32,
        "recalibration_images": 64,
        "eval_random": 1,
        "checkpoint_seconds": 0,
        "deterministic": True,
    },
    "search": {"max_trials": 8, "population": 4, "val_limit": 32, "recalibration_images": 64},
    "finalise": {
        "finalists": 2,
        "epochs": 0.5,
        "processes": 1,
        "recalibration_images": 64,
        "recovery": 2.0,
        "measure_seconds": 0.2,
    },
}


def write_model(path: Path, seed: int = 0) -> Path:
    """A residual network with random weights whose answers are spread over its ten classes."""
    onnx.save(spread(graphs.resnet(seed)), path)
    return path


def spread(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its last bias such that its answers are spread over the classes, changed in place."""
    last = next(node for node in model.graph.node if "y" in node.output)
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == last.input[2])
    scores = _scores(model.SerializeToString(), _images(256, 0))
    centred = onnx.numpy_helper.to_array(bias) - scores.mean(0)
    bias.CopyFrom(onnx.numpy_helper.from_array(centred.astype(np.float32), bias.name))
    return model


def write_data(path: Path, model: Path, n: int = 192, seed: int = 1) -> Path:
    """Noise images, labelled by the model itself: the original is right every time."""
    x = _images(n, seed)
    np.savez(path, x=x, y=_scores(model.read_bytes(), x).argmax(1).astype(np.int64))
    return path


def _images(n: int, seed: int) -> NDArray[np.float32]:
    shape = (n, 3, graphs.SIZE, graphs.SIZE)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _scores(model: bytes, x: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(onnxruntime.InferenceSession(model).run(None, {"x": x})[0])


def write_config(path: Path, **changes: Any) -> Path:
    """A configuration file with the settings of a tiny run."""
    path.write_text(yaml.safe_dump({**SETTINGS, **changes}))
    return path
