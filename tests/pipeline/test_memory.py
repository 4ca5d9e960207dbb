"""What is freed is not fetched from the kernel again: counted in page faults."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import resource, sys
import numpy as np
from onnxnas.pipeline.memory import keep_freed
if sys.argv[1] == "keep" and not keep_freed():
    sys.exit("cannot")
def work():
    for _ in range(20):
        [np.ones(3 << 20, np.uint8) for _ in range(10)]
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode: str) -> int:
    done = subprocess.run([sys.executable, "-c", CODE, mode], capture_output=True, text=True, check=False)
    if "cannot" in done.stderr:
        pytest.skip("the C library has no mallopt")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_the_kernel_is_asked_once() -> None:
    assert faults("keep") < 0.1 * faults("leave")
