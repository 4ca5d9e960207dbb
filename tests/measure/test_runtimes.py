"""Both runtimes through the conformance kit, and what is special about each."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.reference
import pytest

from onnxnas.errors import ConfigError, ModelError
from onnxnas.measure import Runtime, Target, get_runtime, resolve_settings, tiny
from onnxnas.measure.onnxruntime_backend import OnnxRuntime
from onnxnas.testing.runtimes import RuntimeConformance, affine


class TestOnnxRuntime(RuntimeConformance):
    def make(self) -> Runtime:
        return OnnxRuntime()

    @pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core only")
    def test_threads_are_those_asked_for(self) -> None:
        """Counted by the operating system: the calling thread works too."""
        counts = {}
        for threads in (1, 2):
            runtime = OnnxRuntime()
            before = len(os.listdir("/proc/self/task"))
            session = runtime.load(tiny.MATMULS, runtime.defaults(threads))
            counts[threads] = len(os.listdir("/proc/self/task")) - before
            del session
        assert counts == {1: 0, 2: 1}

    def test_config_entries_are_passed_on(self) -> None:
        entry = {"session.set_denormal_as_zero": "1"}
        session: Any = OnnxRuntime().load(tiny.AFFINE, {"config": entry, "allow_spinning": False})
        options = session._session.get_session_options()
        assert options.get_session_config_entry("session.set_denormal_as_zero") == "1"
        assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"

    def test_outputs_that_are_no_tensors_are_refused(self) -> None:
        """As a scikit-learn classifier has them: for each sample a map from class to probability."""
        x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 2])
        kind = onnx.helper.make_map_type_proto(
            onnx.TensorProto.INT64, onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, [])
        )
        y = onnx.helper.make_value_info("chances", onnx.helper.make_sequence_type_proto(kind))
        node = onnx.helper.make_node(
            "ZipMap", ["x"], ["chances"], domain="ai.onnx.ml", classlabels_int64s=[0, 1]
        )
        model = onnx.helper.make_model(
            onnx.helper.make_graph([node], "g", [x], [y]),
            opset_imports=[onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("ai.onnx.ml", 1)],
            ir_version=8,
        )
        with pytest.raises(ModelError, match=r"'chances' is a seq\(map.*zipmap=False"):
            OnnxRuntime().load(model.SerializeToString(), {})

    @pytest.mark.parametrize(
        ("name", "value", "expected"),
        [
            ("intra_op_num_threads", "2", "whole number"),
            ("intra_op_num_threads", 100_000, "cores"),
            ("intra_op_num_threads", -1, "not negative"),
            ("intra_op_num_threads", True, "whole number"),
            ("enable_mem_pattern", 1, "true or false"),
            ("allow_spinning", "no", "true or false"),
            ("execution_mode", "fast", "sequential, parallel"),
            ("graph_optimization_level", 99, "disabled, basic"),
            ("config", ["a"], "mapping"),
            ("config", {"session.x": 1}, "expected text"),
            ("graph_optimisation_level", "all", "did you mean 'graph_optimization_level'"),
        ],
    )
    def test_wrong_settings_say_what_is_expected(self, name: str, value: object, expected: str) -> None:
        with pytest.raises(ConfigError) as caught:
            OnnxRuntime().load(tiny.AFFINE, {name: value})
        assert expected in str(caught.value)


def test_openvino_conforms(root: Path) -> None:
    """See `openvino_kit` for why it has a process of its own."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "tests/measure/openvino_kit.py"], cwd=root, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 15  # type: ignore[index]


def test_tiny_models_are_what_they_claim() -> None:
    """The kit's own oracle against ONNX's reference evaluator."""
    for model in (tiny.MATMULS, tiny.AFFINE, tiny.GATHER):
        onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    reference = onnx.reference.ReferenceEvaluator(onnx.load_from_string(tiny.AFFINE))
    for got, expected in zip(affine(x), reference.run(None, {"x": x}), strict=True):
        assert np.allclose(got, expected, rtol=1e-5)
    feeds = tiny.matmuls_feeds()
    (power,) = onnx.reference.ReferenceEvaluator(onnx.load_from_string(tiny.MATMULS)).run(None, feeds)
    assert np.allclose(power, np.linalg.matrix_power(feeds["x"], 7), atol=1e-4)


def test_a_third_party_runtime_by_name() -> None:
    assert get_runtime("tests.measure.fakes:Fake").name == "fake"


@pytest.mark.parametrize(
    "name", ["tensorrt", "tests.measure.fakes:Nobody", "no.such.module:Name", "os.path:join"]
)
def test_unknown_runtimes_are_config_errors(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        get_runtime(name)
    assert name in str(caught.value)


def test_target_settings_lie_over_the_defaults() -> None:
    target = Target("onnxruntime", 2, 4, {"allow_spinning": False})
    settings = resolve_settings(target)
    assert settings == {**OnnxRuntime().defaults(2), "allow_spinning": False}
    assert Target.from_json(target.to_json()) == target


@pytest.mark.parametrize("body", [{"threads": 0}, {"batch": 1.5}, {"threads": True}, {"treads": 1}])
def test_wrong_targets_are_config_errors(body: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="target"):
        Target.from_json(body)
