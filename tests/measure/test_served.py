"""Candidates that are served in another way than the baseline they are measured beside.

Figures are those of `settled`, as the search takes them: other tests are at work on the machine.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from onnxnas.measure import Measurer, Protocol, Served, Target
from tests.measure.fakes import model

TARGET = Target("tests.measure.fakes:Adjustable", batch=2, settings={"us": 400})
Feeds = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def measurer(feeds: Feeds) -> Iterator[Measurer]:
    with Measurer(TARGET, model(), feeds, timeout=15, noise_floor=0.0) as made:
        yield made


def test_settings_are_the_candidates_alone(measurer: Measurer, brief: Protocol, feeds: Feeds) -> None:
    """Its inferences take a quarter of the time, the baseline's what they took."""
    faster = Served(TARGET.served({"us": 100}), feeds)
    found = measurer.settled(model(), protocol=brief, served=faster)
    assert found.speedup is not None
    assert found.baseline_p50 is not None
    assert found.speedup.value == pytest.approx(4, rel=0.25)
    assert found.baseline_p50.value == pytest.approx(0.4, rel=0.25)
    again = measurer.settled(model(), protocol=brief)
    assert again.speedup is not None
    assert again.speedup.value == pytest.approx(1, rel=0.25)


def test_a_larger_batch_is_told_by_the_sample(measurer: Measurer, brief: Protocol) -> None:
    """An inference takes as long with 8 samples as with 2 here: four times the speed, at the same latency."""
    larger = Served(TARGET.served({"batch": 8}), {"x": np.ones((8, 3), np.float32)})
    found = measurer.settled(model(), protocol=brief, served=larger)
    for figure, expected in ((found.speedup, 4), (found.p50, 0.4), (found.throughput, 8 / 400e-6)):
        assert figure is not None
        assert figure.value == pytest.approx(expected, rel=0.25)


def test_several_rounds(measurer: Measurer, feeds: Feeds) -> None:
    """Both are loaded again in each round, each with its own settings."""
    rounds = Protocol("rounds", 0.12, min_turns=4, block_seconds=0.001, warmup_seconds=0.002, rounds=6)
    found = measurer.settled(
        model(), protocol=rounds, served=Served(TARGET.served({"us": 100, "batch": 4}), _two(feeds))
    )
    assert found.speedup is not None
    assert found.speedup.value == pytest.approx(8, rel=0.25)


def test_what_the_runtime_refuses_is_the_candidates_fault(
    measurer: Measurer, brief: Protocol, feeds: Feeds
) -> None:
    found = measurer.measure(model(), protocol=brief, served=Served(TARGET.served({"us": 0}), feeds))
    assert (found.status, "expected more" in found.error) == ("invalid", True)
    assert measurer.measure(model(), protocol=brief).status == "ok"


def test_a_target_served_otherwise() -> None:
    served = TARGET.served({"threads": 2, "batch": 3, "spin": False})
    assert (served.runtime, served.threads, served.batch) == (TARGET.runtime, 2, 3)
    assert served.settings == {"us": 400, "spin": False}
    assert TARGET.served({}) == TARGET


def _two(feeds: Feeds) -> Feeds:
    return {name: np.concatenate([value, value]) for name, value in feeds.items()}
