"""OpenVINO through the conformance kit; run by `test_runtimes` in a process of its own.

OpenVINO and torch loaded by one process end it with a segmentation fault when it exits (seen with
OpenVINO 2026.4 and torch 2.13), which takes a test runner with it.
"""

from __future__ import annotations

from typing import Any

import pytest

from onnxnas.errors import ConfigError
from onnxnas.measure import Runtime, tiny
from onnxnas.measure.openvino_backend import OpenVino
from onnxnas.testing.runtimes import RuntimeConformance


class TestOpenVino(RuntimeConformance):
    def make(self) -> Runtime:
        return OpenVino()

    def test_settings_reach_the_device(self) -> None:
        runtime = OpenVino()
        session: Any = runtime.load(tiny.AFFINE, runtime.defaults(1))
        compiled = session._request.get_compiled_model()
        assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
        assert compiled.get_property("NUM_STREAMS") == 1
        assert "float32" in str(compiled.get_property("INFERENCE_PRECISION_HINT"))

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("PERFORMANCE_HINT", "FAST"),
            ("INFERENCE_NUM_THREADS", -3),
            ("INFERENCE_NUM_THREADS", 100_000),
            ("NUM_STREAM", 1),
            ("AVAILABLE_DEVICES", "x"),
        ],
    )
    def test_wrong_settings_are_named(self, name: str, value: object) -> None:
        with pytest.raises(ConfigError, match=name):
            OpenVino().load(tiny.AFFINE, {name: value})
