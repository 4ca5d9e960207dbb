"""The scenarios, on a fake runtime whose inferences last as long as they are told."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from onnxnas.errors import ConfigError, ModelError
from onnxnas.measure import Protocol, Target, bench, tiny
from tests.measure.fakes import model

FAKE = Target("tests.measure.fakes:Fake")
QUICK = Protocol("quick", 0.08, min_turns=8, block_seconds=0.002, warmup_seconds=0.002)


@pytest.fixture(autouse=True)
def _quick_calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxnas.measure.measurer._CALIBRATIONS", 3)
    monkeypatch.setattr("onnxnas.measure.measurer._CALIBRATION_TURNS_SECONDS", 0.01)


def feeds(batch: int) -> dict[str, np.ndarray]:
    return {"x": np.ones((batch, 3), np.float32)}


def run(first: bytes, **options: Any) -> dict[str, Any]:
    body = bench(first, feeds, target=FAKE, protocol=QUICK, timeout=20, **options)
    return json.loads(json.dumps(body, allow_nan=False))  # type: ignore[no-any-return]


def test_single_stream_finds_the_faster_one() -> None:
    body = run(model(us=100), against=model(us=400))
    assert body["scenario"] == "single-stream"
    assert body["verdict"] == "faster"
    assert 2 < body["speedup"]["value"] < 6
    assert body["model"]["p50_ms"]["value"] < body["against"]["p50_ms"]["value"]
    assert body["target"]["settings"] == {"threads": 1}
    alone = run(model(us=100))
    assert alone["against"] is alone["speedup"] is alone["verdict"] is None
    assert alone["model"]["p50_ms"]["value"] >= 0.1


def test_offline_takes_the_batch_that_suits_best() -> None:
    """An inference lasts as long for 64 samples as for one here."""
    body = run(model(us=200), against=model(us=900), scenario="offline", batches=(1, 64))
    assert body["model"]["batch"] == body["against"]["batch"] == 64
    assert set(body["model"]["by_batch"]) == {"1", "64"}
    assert body["model"]["samples_per_s"]["value"] <= 64 / 200e-6
    assert body["model"]["p50_ms"]["value"] < body["against"]["p50_ms"]["value"]
    speedup = body["speedup"]
    assert speedup["lo"] <= speedup["value"] <= speedup["hi"]


def test_offline_stays_with_the_batches_that_the_model_takes() -> None:
    def fixed(batch: int) -> dict[str, np.ndarray]:
        size = 96 if batch == 1 else 96 * batch
        return {"x": np.ones((size, 96), np.float32)}

    body = bench(tiny.MATMULS, fixed, scenario="offline", batches=(1, 2), protocol=QUICK)
    assert body["model"]["batch"] == 1
    assert set(body["model"]["by_batch"]) == {"1"}


def test_server_holds_its_bound() -> None:
    body = run(model(us=500), scenario="server", bound_ms=100.0)
    served = body["model"]
    assert body["bound_ms"] == 100.0
    assert served["utilisation"] <= 1.0
    if served["within_bound"]:
        assert served["p99_ms"]["value"] <= 100.0
        assert 0 < served["queries_per_s"]["value"] <= 1 / 500e-6
    else:
        assert served["queries_per_s"]["value"] == 0.0


def test_server_bound_that_cannot_be_held() -> None:
    body = run(model(us=500), scenario="server", bound_ms=0.1)
    assert body["model"]["within_bound"] is False
    assert body["model"]["queries_per_s"]["value"] == 0.0
    assert body["model"]["p50_ms"]["value"] >= 0.5


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"scenario": "multi-stream"}, ConfigError, "multi-stream"),
        ({"scenario": "offline", "batches": ()}, ConfigError, "batches"),
        ({"scenario": "server", "bound_ms": -1.0}, ConfigError, "bound"),
        ({"against": b"nothing"}, ModelError, "original model"),
    ],
)
def test_wrong_options(options: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        run(model(), **options)


def test_a_broken_model_is_an_error() -> None:
    with pytest.raises(ModelError, match="crashed"):
        run(model("segfault"), against=model())
