"""The child process: limits hold, and its death is an error message."""

from __future__ import annotations

import os
import signal
import time

import pytest
from onnx import ModelProto

from onnxnas import graph
from onnxnas.errors import ModelError
from onnxnas.graph.child import Child, strip
from onnxnas.testing import graphs


def test_crash_is_reported(small: ModelProto) -> None:
    with Child(graph.Limits()) as child:
        child.check(small)
        os.kill(child._process.pid, signal.SIGSEGV)
        with pytest.raises(ModelError, match="SIGSEGV"):
            child.check(small)


def test_hang_ends_at_the_time_limit(small: ModelProto) -> None:
    with Child(graph.Limits(seconds=0.3)) as child:
        os.kill(child._process.pid, signal.SIGSTOP)
        start = time.monotonic()
        with pytest.raises(ModelError, match=r"more than 0\.3 s"):
            child.check(small)
        assert time.monotonic() - start < 5


def test_memory_limit(small: ModelProto) -> None:
    with pytest.raises(ModelError, match=r"memory|ended without an answer|crashed"):
        graph.load(small, limits=graph.Limits(memory=64 << 20))


def test_checker_message_is_one_line(small: ModelProto) -> None:
    del small.graph.node[1].output[:]
    small.graph.node[1].output.extend(["b", "b2"])  # Relu has one output
    with pytest.raises(ModelError) as caught:
        graph.load(small)
    assert "Relu" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_do_not_travel() -> None:
    model = graphs.vgg(channels=(64, 128))
    assert len(strip(model).SerializeToString()) < len(model.SerializeToString()) / 10


def test_no_child_is_left(small: ModelProto) -> None:
    with Child(graph.Limits()) as child:
        pid = child._process.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_conversion_that_is_not_known(small: ModelProto) -> None:
    """Its message comes as one line, as that of the checker does."""
    with Child(graph.Limits()) as child:
        assert child.converted(small, 18).opset_import[0].version == 18
        with pytest.raises(ModelError, match="conversion to opset 250") as caught:
            child.converted(small, 250)
        assert "\n" not in str(caught.value)
