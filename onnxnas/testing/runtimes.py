"""Conformance kit for runtimes. Subclass it in a test module, say how to make the runtime, run pytest:

    class TestMine(RuntimeConformance):
        def make(self) -> Runtime:
            return MyRuntime()
        unknown_setting = "no_such_setting"

Every test says in its docstring which sentence of the `Runtime` contract it checks. The models are tiny
and come with the kit; their expected outputs are computed with numpy.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

import numpy as np

from onnxnas.errors import ConfigError, ModelError
from onnxnas.measure.runtime import Array, Runtime, Session
from onnxnas.measure.tiny import AFFINE, AFFINE_BIAS, AFFINE_WEIGHT, GATHER, MATMULS, matmuls_feeds

TOLERANCE = 1e-5


class RuntimeConformance:
    """What every `Runtime` must do. Override `make`; raise `tolerance` only for a lower precision."""

    unknown_setting = "onnxnas_no_such_setting"
    tolerance = TOLERANCE

    def make(self) -> Runtime:
        raise AssertionError(f"{type(self).__name__} must override make() to return its runtime")

    def load(self, model: bytes) -> Session:
        runtime = self.make()
        return runtime.load(model, runtime.defaults(1))

    def test_has_a_name_and_a_version(self) -> None:
        """`name` and `version()` are non-empty texts."""
        runtime = self.make()
        assert isinstance(runtime.name, str)
        assert runtime.name
        assert isinstance(runtime.version(), str)
        assert runtime.version()

    def test_settings_are_json_and_follow_the_threads(self) -> None:
        """Settings are JSON values; `defaults` is for the number of threads asked for."""
        runtime = self.make()
        for threads in (1, 2):
            settings = runtime.defaults(threads)
            assert json.loads(json.dumps(settings)) == settings
        assert runtime.defaults(1) != runtime.defaults(2)

    def test_knobs_begin_with_the_default(self) -> None:
        """`knobs` maps settings to choices, the default first, all JSON values."""
        runtime = self.make()
        defaults = runtime.defaults(2)
        for name, choices in runtime.knobs(2).items():
            assert len(choices) == len(set(choices)) > 0, name
            assert json.loads(json.dumps(choices)) == list(choices), name
            if name in defaults:
                assert choices[0] == defaults[name], name

    def test_every_knob_loads_and_leaves_the_outputs_alone(self) -> None:
        """Every choice of every knob is accepted, and none changes what the model computes."""
        runtime = self.make()
        feeds = {"x": _rows(2)}
        for name, choices in runtime.knobs(1).items():
            for choice in choices:
                session = runtime.load(AFFINE, {**runtime.defaults(1), name: choice})
                _close(session.run(feeds), affine(feeds["x"]), self.tolerance, f"{name}={choice}")

    def test_outputs_equal_the_reference_in_graph_order(self) -> None:
        """`run` gives the outputs in the order of the graph's outputs (here sigmoid first)."""
        feeds = {"x": _rows(4)}
        _close(self.load(AFFINE).run(feeds), affine(feeds["x"]), self.tolerance, "AFFINE")

    def test_integer_inputs(self) -> None:
        """Feeds keep their dtype: int64 indices reach Gather."""
        rows = np.array([2, 0, 1, 2], np.int64)
        _close(self.load(GATHER).run({"i": rows}), [AFFINE_WEIGHT[rows]], 0.0, "GATHER")

    def test_batch_is_dynamic(self) -> None:
        """One session serves any size of a dynamic dimension, in any order."""
        session = self.load(AFFINE)
        for n in (1, 5, 2, 5):
            x = _rows(n)
            _close(session.run({"x": x}), affine(x), self.tolerance, f"batch {n}")

    def test_equal_feeds_give_equal_outputs(self) -> None:
        """Deterministic, within a session and between sessions, bit for bit at one thread."""
        feeds = matmuls_feeds()
        session = self.load(MATMULS)
        first, again, other = session.run(feeds), session.run(feeds), self.load(MATMULS).run(feeds)
        assert first[0].tobytes() == again[0].tobytes() == other[0].tobytes()

    def test_outputs_are_not_overwritten(self) -> None:
        """Outputs do not alias memory that a later call overwrites."""
        session = self.load(AFFINE)
        first = session.run({"x": _rows(3)})
        kept = [output.copy() for output in first]
        session.run({"x": _rows(3) + 7})
        for output, copy in zip(first, kept, strict=True):
            assert np.array_equal(output, copy)

    def test_feeds_are_not_changed(self) -> None:
        """The arrays given are read only."""
        feeds = matmuls_feeds()
        before = feeds["x"].copy()
        session = self.load(MATMULS)
        session.run(feeds)
        session.bind(feeds)()
        assert np.array_equal(feeds["x"], before)

    def test_non_contiguous_feeds(self) -> None:
        """Any strides will do."""
        x = np.asfortranarray(_rows(6))[::2]
        _close(self.load(AFFINE).run({"x": x}), affine(x), self.tolerance, "strided")

    def test_nan_and_infinity_pass_through(self) -> None:
        """NaN and infinity in the feeds come out where they belong, and only there."""
        x = _rows(3)
        x[1, 0], x[2, 1] = np.nan, np.inf
        y = self.load(AFFINE).run({"x": x})[1]
        assert np.isfinite(y[0]).all()
        assert np.isnan(y[1]).all()
        assert np.isposinf(y[2]).all()

    def test_bound_call_makes_an_inference(self) -> None:
        """`bind` gives a function that can be called again and again, also next to another session's."""
        first, second = self.load(MATMULS), self.load(AFFINE)
        calls = [first.bind(matmuls_feeds()), second.bind({"x": _rows(2)})]
        for _ in range(3):
            for call in calls:
                call()
        feeds = matmuls_feeds()
        expected = np.linalg.matrix_power(feeds["x"].astype(np.float64), 7)
        _close(first.run(feeds), [expected], max(self.tolerance, 1e-4), "after bound calls")

    def test_bad_models_are_model_errors(self) -> None:
        """What is not a model, and a model cut short, raise `ModelError` and leave the runtime usable."""
        for label, model in {"empty": b"", "text": b"<html>not a model</html>", "cut": AFFINE[:60]}.items():
            _raises(ModelError, lambda model=model: self.load(model), label)  # type: ignore[misc]
        _close(self.load(AFFINE).run({"x": _rows(1)}), affine(_rows(1)), self.tolerance, "afterwards")

    def test_bad_feeds_are_model_errors(self) -> None:
        """Missing, unknown, wrongly typed and wrongly shaped inputs raise `ModelError`."""
        x = _rows(2)
        cases: dict[str, Mapping[str, Array]] = {
            "missing": {},
            "unknown": {"x": x, "other": x},
            "dtype": {"x": x.astype(np.float64)},
            "shape": {"x": x[:, :2].copy()},
        }
        session = self.load(AFFINE)
        for label, feeds in cases.items():
            _raises(ModelError, lambda feeds=feeds: session.run(feeds), label)  # type: ignore[misc]
        _close(session.run({"x": x}), affine(x), self.tolerance, "afterwards")

    def test_unknown_setting_is_a_config_error(self) -> None:
        """A setting that does not exist raises `ConfigError` naming it."""
        runtime = self.make()
        message = _raises(ConfigError, lambda: runtime.load(AFFINE, {self.unknown_setting: 1}), "unknown")
        assert self.unknown_setting in message


def affine(x: Array) -> list[Array]:
    """The outputs of AFFINE: [sigmoid(y), y], each n x 2."""
    y = x.astype(np.float64) @ AFFINE_WEIGHT.astype(np.float64) + AFFINE_BIAS
    return [1 / (1 + np.exp(-y)), y]


def _rows(n: int) -> Array:
    return np.random.default_rng(n).normal(size=(n, 3)).astype(np.float32)


def _close(got: list[Array], expected: list[Array], tolerance: float, label: str) -> None:
    assert len(got) == len(expected), f"{label}: {len(got)} outputs, expected {len(expected)}"
    for number, (a, b) in enumerate(zip(got, expected, strict=True)):
        assert a.shape == b.shape, f"{label}: output {number} has shape {a.shape}, expected {b.shape}"
        error = float(np.max(np.abs(a - b))) / max(float(np.max(np.abs(b))), 1e-30)
        assert error <= tolerance, f"{label}: output {number} is off by {error:.2e} relative"


def _raises(kind: type[Exception], action: Callable[[], object], label: str) -> str:
    try:
        action()
    except kind as error:
        return str(error)
    raise AssertionError(f"{label}: expected {kind.__name__}, nothing was raised")
