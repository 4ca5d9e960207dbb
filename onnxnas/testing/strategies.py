"""Hypothesis strategies over test networks (needs the `dev` extra)."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from onnx import ModelProto

from onnxnas.testing.graphs import random_cnn


def cnns(*, blocks: int = 4) -> st.SearchStrategy[ModelProto]:
    """Random small CNNs, each decided by one seed."""
    return st.integers(0, (1 << 32) - 1).map(
        lambda seed: random_cnn(np.random.default_rng(seed), blocks=blocks)
    )
