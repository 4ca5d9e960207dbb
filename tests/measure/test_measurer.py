"""Candidates that crash, hang, overeat or lie, in a real measuring process; the next one is always measured."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from onnxnas.errors import ConfigError, EnvironmentProblem, ModelError
from onnxnas.measure import CandidateError, Latency, Measurer, Protocol, Target, tiny
from onnxnas.types import Measurement
from tests.measure.fakes import model

MIB = 1 << 20
FAKE = Target("tests.measure.fakes:Fake")
Feeds = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def measurer(feeds: Feeds) -> Iterator[Measurer]:
    with Measurer(FAKE, model(us=60), feeds, timeout=15, memory_limit=250 * MIB) as made:
        yield made


FAULTS = {
    "segfault": ("crashed", "SIGSEGV"),
    "abort": ("crashed", "terminating for a reason"),
    "exit": ("crashed", "status 0 before answering"),
    "garbage": ("crashed", "garbage"),
    "close": ("crashed", "closed its answers"),
    "bad_alloc": ("oom", "SIGABRT"),
    "hog": ("oom", "above the limit 250 MiB"),
    "hog_at_once": ("oom", ""),
    "says_no_memory": ("oom", "Failed to allocate"),
    "nan": ("invalid", "output 0 holds NaN"),
    "shape": ("invalid", "output 0 has shape (2, 1); the original's has (2, 3)"),
    "more": ("invalid", "2 outputs; the original has 1"),
    "error": ("invalid", "KeyError"),
}


@pytest.mark.parametrize("mode", FAULTS)
def test_fault_becomes_a_status_and_the_next_is_measured(
    measurer: Measurer, brief: Protocol, mode: str
) -> None:
    status, said = FAULTS[mode]
    broken = measurer.measure(model(mode), protocol=brief)
    assert (broken.status, said in broken.error) == (status, True), broken.error
    assert broken.p50 is broken.speedup is broken.peak_memory is None
    assert len(broken.error) < 600
    assert "\n" not in broken.error
    sound = measurer.measure(model(us=60), protocol=brief)
    assert sound.status == "ok", sound.error


@pytest.mark.parametrize("mode", ["segfault", "nan"])
def test_fault_that_comes_late(measurer: Measurer, brief: Protocol, mode: str) -> None:
    """Well in the first inference, broken in the hundredth."""
    assert measurer.measure(model(mode, after=20), protocol=brief).status == FAULTS[mode][0]


def test_refused_model(measurer: Measurer, brief: Protocol) -> None:
    latency = measurer.measure(b"\x00 no json", protocol=brief)
    assert (latency.status, "not a fake model" in latency.error) == ("invalid", True)


def test_hundred_megabytes_on_stderr_do_no_harm(measurer: Measurer, brief: Protocol) -> None:
    assert measurer.measure(model("chatter"), protocol=brief).status == "ok"
    assert measurer._child is not None
    assert len(measurer._child._printed) <= 64 << 10


def test_hang_is_killed_with_all_it_started(
    brief: Protocol, feeds: Feeds, tmp_path: Path, gone: Callable[[int], bool]
) -> None:
    file = tmp_path / "pids"
    with Measurer(FAKE, model(), feeds, timeout=15, noise_floor=0.0) as measurer:
        measurer.timeout = 1.0
        latency = measurer.measure(model("hang", pid_file=str(file)), protocol=brief)
        assert latency.status == "timeout"
        assert "no answer within" in latency.error
        for pid in map(int, file.read_text().split()):
            assert gone(pid)
        measurer.timeout = 15
        assert measurer.measure(model(), protocol=brief).status == "ok"


def test_death_is_noticed_though_a_grandchild_holds_the_pipes(
    measurer: Measurer, brief: Protocol, tmp_path: Path, gone: Callable[[int], bool]
) -> None:
    file = tmp_path / "pids"
    latency = measurer.measure(model("exit_with_child", pid_file=str(file)), protocol=brief)
    assert (latency.status, "status 0" in latency.error) == ("crashed", True), latency.error
    for pid in map(int, file.read_text().split()):
        assert gone(pid)


def test_one_process_for_many_candidates_and_none_afterwards(
    brief: Protocol, feeds: Feeds, gone: Callable[[int], bool]
) -> None:
    with Measurer(FAKE, model(), feeds, noise_floor=0.0) as measurer:
        pids = set()
        for us in (40, 60, 80):
            assert measurer.measure(model(us=us), protocol=brief).status == "ok"
            assert measurer._child is not None
            pids.add(measurer._child.pid)
        (pid,) = pids
    assert gone(pid)
    measurer.close()


PARENT = """
import sys, numpy as np
from onnxnas.measure import Measurer, Target
from tests.measure.fakes import model
target = Target("tests.measure.fakes:Fake")
with Measurer(target, model(), {"x": np.zeros((2, 3), np.float32)}, noise_floor=0.0) as measurer:
    measurer.measure(model("hang", pid_file=sys.argv[1]))
"""


def test_nothing_outlives_a_killed_parent(tmp_path: Path, root: Path, gone: Callable[[int], bool]) -> None:
    """kill -9 of the parent while the child hangs in native code with the interpreter's lock held."""
    file = tmp_path / "pids"
    environment = {**os.environ, "PYTHONPATH": str(root)}
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(file)], cwd=root, env=environment)
    try:
        end = time.monotonic() + 60
        while not (file.exists() and len(file.read_text().split()) == 2):
            assert parent.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    for pid in map(int, file.read_text().split()):
        assert gone(pid)


def test_an_interrupt_leaves_no_process(feeds: Feeds, gone: Callable[[int], bool], brief: Protocol) -> None:
    class Stop(BaseException):
        pass

    def stop(*_: object) -> None:
        raise Stop

    before = signal.signal(signal.SIGALRM, stop)
    try:
        with Measurer(FAKE, model(), feeds, noise_floor=0.0) as measurer:
            assert measurer._child is not None
            pid = measurer._child.pid
            signal.setitimer(signal.ITIMER_REAL, 0.5)
            with pytest.raises(Stop):
                measurer.measure(model("hang"), protocol=brief)
            assert gone(pid)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def test_the_process_is_pinned_clean_and_light(feeds: Feeds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "77")
    monkeypatch.setenv("KMP_AFFINITY", "secret")
    cores = sorted(os.sched_getaffinity(0))
    with Measurer(Target("tests.measure.fakes:Witness", 1), model(), feeds) as measurer:
        seen = json.loads(measurer.version)
    assert len(seen["cores"]) == 1
    assert set(seen["cores"]) <= set(cores)
    assert seen["omp"] == "1"
    assert "KMP_AFFINITY" not in seen["variables"]
    assert seen["heavy"] == []
    assert seen["session"] is True


def test_a_true_difference_is_found_and_none_invented(measurer: Measurer) -> None:
    protocol = Protocol("brief", 0.15, min_turns=10, block_seconds=0.002, warmup_seconds=0.002)
    slow = measurer.measure(model(us=600), protocol=protocol)
    assert slow.speedup is not None
    assert slow.speedup.high < 1
    assert not slow.faster
    assert slow.p50 is not None
    assert slow.baseline_p50 is not None
    assert slow.p50.value > slow.baseline_p50.value
    same = measurer.measure(model(us=60), protocol=protocol)
    assert same.speedup is not None
    assert same.speedup.low < 1.1
    assert same.speedup.high > 0.9


def test_figures_are_ordered_and_json(measurer: Measurer, brief: Protocol) -> None:
    latency = measurer.measure(model(us=60), protocol=brief)
    body = json.loads(json.dumps(latency.to_json()))
    assert body["status"] == "ok"
    for name in ("p50", "p90", "p99", "throughput", "baseline_p50", "baseline_throughput", "speedup"):
        assert 0 < body[name]["lo"] <= body[name]["value"] <= body[name]["hi"], name
    assert body["p50"]["value"] <= body["p90"]["value"] <= body["p99"]["value"]
    assert body["p50"]["value"] >= 0.06  # ms: the fake waits for 60 us at least
    assert body["throughput"]["value"] <= 1 / 60e-6
    assert body["peak_memory"] is None or body["peak_memory"] >= 0


def test_several_rounds_load_afresh(measurer: Measurer) -> None:
    rounds = Protocol("rounds", 0.02, rounds=6, min_turns=2, block_seconds=0.001, warmup_seconds=0.002)
    latency = measurer.measure(model(us=60), protocol=rounds)
    assert latency.status == "ok", latency.error
    assert latency.speedup is not None
    assert latency.speedup.n >= 12
    assert latency.speedup.protocol == "rounds"


def test_run_returns_outputs_and_keeps_the_model(measurer: Measurer, feeds: Feeds) -> None:
    for factor in (1, 3):
        (output,) = measurer.run(model(), {"x": feeds["x"] * factor})
        assert np.array_equal(output, feeds["x"] * factor * 2)
    with pytest.raises(CandidateError) as caught:
        measurer.run(model("segfault"), feeds)
    assert caught.value.status == "crashed"
    with pytest.raises(CandidateError, match="only numbers"):
        measurer.run(model("text"), feeds)
    assert np.isnan(measurer.run(model("nan"), feeds)[0][0, 0])
    with pytest.raises(ConfigError, match="only numbers"):
        measurer.run(model(), {"x": np.array(["a"], object)})
    assert np.array_equal(measurer.run(model(), feeds)[0], feeds["x"] * 2)


def test_a_baseline_with_infinities_allows_them(feeds: Feeds, brief: Protocol) -> None:
    """A mask that puts out NaN or infinity does so in every candidate."""
    with Measurer(FAKE, model("nan"), feeds, noise_floor=0.0) as measurer:
        assert measurer.measure(model("nan"), protocol=brief).status == "ok"


@pytest.mark.parametrize(
    ("target", "baseline", "error", "said"),
    [
        (FAKE, model("segfault"), ModelError, "the original model cannot be run in tests.measure.fakes:Fake"),
        (FAKE, b"nothing", ModelError, "not a fake model"),
        (Target("tests.measure.fakes:Missing"), model(), EnvironmentProblem, "pip install fake"),
        (Target("nobody"), model(), ConfigError, "nobody"),
        (Target("onnxruntime", settings={"x": 1}), tiny.AFFINE, ConfigError, "no setting 'x'"),
        (Target("onnxruntime", 4096), tiny.AFFINE, ConfigError, "may use"),
    ],
)
def test_what_is_not_the_candidates_fault_is_raised(
    feeds: Feeds, target: Target, baseline: bytes, error: type[Exception], said: str
) -> None:
    with pytest.raises(error) as caught, Measurer(target, baseline, feeds):
        pass
    assert said in str(caught.value)


def test_unknown_protocol(measurer: Measurer) -> None:
    with pytest.raises(ConfigError, match="'medium'"):
        measurer.measure(model(), protocol="medium")


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_real_runtimes(name: str, brief: Protocol) -> None:
    feeds = tiny.matmuls_feeds()
    with Measurer(Target(name), tiny.MATMULS, feeds, noise_floor=0.0) as measurer:
        latency = measurer.measure(tiny.MATMULS, protocol=brief)
        assert latency.status == "ok", latency.error
        broken = measurer.measure(tiny.MATMULS[:90], protocol=brief)
        assert broken.status == "invalid"
        other = measurer.measure(tiny.AFFINE, protocol=brief)
        assert other.status == "invalid"
        (output,) = measurer.run(tiny.MATMULS, feeds)
    assert np.allclose(output, np.linalg.matrix_power(feeds["x"].astype(float), 7), atol=1e-4)


def ratio(value: float, low: float, high: float) -> Latency:
    return Latency("ok", speedup=Measurement(value, low, high, 8, "", "short"))


@pytest.mark.parametrize(
    ("told", "kept", "asked"),
    [
        ([ratio(2.0, 1.9, 2.1)], 0, 1),
        ([ratio(4.0, 2.0, 5.0), ratio(2.0, 1.9, 2.1)], 1, 2),
        ([ratio(4.0, 2.0, 5.0), ratio(2.5, 1.5, 3.0), ratio(3.0, 1.0, 9.0)], 1, 3),
        ([ratio(4.0, 2.0, 5.0), Latency("timeout"), ratio(2.0, 1.9, 2.1)], 2, 3),
        ([Latency("crashed")], 0, 1),
    ],
)
def test_wide_intervals_are_measured_again(
    monkeypatch: pytest.MonkeyPatch, feeds: Feeds, told: list[Latency], kept: int, asked: int
) -> None:
    """Three times at most, the narrowest counts; what failed at first is not tried again."""
    left = list(told)
    quiet = Measurer(FAKE, model(us=60), feeds)  # never entered: no process
    monkeypatch.setattr(quiet, "measure", lambda *_, **__: left.pop(0))
    assert quiet.settled(b"") is told[kept]
    assert len(told) - len(left) == asked


def test_a_slow_baseline_is_measured_again(monkeypatch: pytest.MonkeyPatch, feeds: Feeds) -> None:
    """A moment in which others slow the baseline down would make the candidate look fast, and surely so."""

    def told(baseline: float, speedup: float) -> Latency:
        figure = Measurement(baseline, baseline, baseline, 8, "ms", "short")
        return replace(ratio(speedup, 0.99 * speedup, 1.01 * speedup), baseline_p50=figure)

    calm = [told(1.0 + 0.01 * i, 2.0) for i in range(5)]
    left = [*calm, told(9.0, 18.0), told(1.02, 2.1), told(1.4, 2.0)]
    quiet = Measurer(FAKE, model(us=60), feeds)  # never entered: no process
    monkeypatch.setattr(quiet, "measure", lambda *_, **__: left.pop(0))
    found = [quiet.settled(b"").speedup for _ in range(7)]
    assert [figure.value for figure in found if figure] == [2.0] * 5 + [2.1, 2.0]
    assert not left
