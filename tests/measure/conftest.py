from __future__ import annotations

import os
import time
from collections.abc import Callable

import numpy as np
import pytest

from onnxnas.measure.protocol import Protocol


@pytest.fixture(scope="session")
def brief() -> Protocol:
    """A protocol for tests: a few hundredths of a second."""
    return Protocol("brief", 0.02, min_turns=6, block_seconds=0.001, warmup_seconds=0.002)


@pytest.fixture(scope="session")
def feeds() -> dict[str, np.ndarray]:
    return {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}


@pytest.fixture(scope="session")
def gone() -> Callable[[int], bool]:
    """Whether the process with this number has ended, or does within a few seconds."""

    def check(pid: int) -> bool:
        for _ in range(400):
            try:
                with open(f"/proc/{pid}/stat") as file:
                    state = file.read().rpartition(")")[2].split()[0]
            except (FileNotFoundError, ProcessLookupError):
                return True
            if state == "Z" and os.getppid() != pid:  # ended; whoever inherited it has yet to look
                return True
            time.sleep(0.05)
        return False

    return check
