"""Fixtures that all tests share."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]


def pytest_configure() -> None:
    """A shell starts what it puts in the background with Ctrl-C ignored; tests of Ctrl-C need it all the same."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real models and data sets: $ONNXNAS_SHARED, or `shared` beside the repository."""
    place = Path(os.environ.get("ONNXNAS_SHARED") or ROOT.parent / "shared")
    if not (place / "data").is_dir():
        pytest.skip(f"real models and data are not here: {place} (set ONNXNAS_SHARED)")
    return place


@pytest.fixture(scope="session")
def zoo(shared: Path) -> Callable[[str], Any]:
    """`zoo(name)` loads a published architecture with random weights as an `onnx.ModelProto`."""
    file = shared / "zoo" / "zoo.py"
    if not file.is_file():
        pytest.skip(f"the model zoo is not here: {file}")
    spec = importlib.util.spec_from_file_location("onnxnas_tests_zoo", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    loader: Callable[[str], Any] = module.load
    return loader


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator of its own for each test."""
    return np.random.default_rng(20240229)


@pytest.fixture(autouse=True)
def one_torch_thread() -> None:
    """Several test processes share few cores. Torch is never imported for this alone."""
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "get_num_threads") and torch.get_num_threads() != 1:
        torch.set_num_threads(1)
