"""Verification: damage of every kind is seen, numbers are computed again, latency never fails."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from onnxnas.errors import RunError
from onnxnas.handoff import bundle
from onnxnas.handoff.verify import TOLERANCE_8_BITS, compare, verify, with_batch
from onnxnas.types import Subnet
from tests.handoff.synthetic import SHA, member, tiny_model, tiny_reference

X = np.linspace(-2, 2, 12, dtype=np.float32).reshape(4, 3)


def make(place: Path, *, wrong: float = 0.0, threads: int = 1, model: bytes | None = None) -> Path:
    return bundle.write(
        place,
        tiny_model().SerializeToString() if model is None else model,
        runtime_settings={"runtime": "onnxruntime", "threads": threads, "batch": 1},
        metrics=member(1),
        card=bundle.CardInfo("tiny", "tiny.onnx", SHA, Subnet()),
        samples=bundle.Samples({"x": X}, {"out/y:0": tiny_reference(X) + np.float32(wrong)}),
    )


def test_a_whole_bundle_is_ok(tmp_path: Path) -> None:
    report = verify(make(tmp_path / "b", threads=512))
    assert report.ok, report
    assert report.numbers is not None
    assert report.numbers["max_rel"] < 1e-6
    assert report.latency is not None
    assert report.latency["recorded"] == member(1)["latency_ms"]["p50"]
    assert 0 < report.latency["lo"] <= report.latency["p50"] <= report.latency["hi"]
    assert "512 threads" in report.notes[0]
    body = json.loads(json.dumps(report.to_json()))
    assert body["ok"] is True


def test_other_numbers_are_a_problem(tmp_path: Path) -> None:
    report = verify(make(tmp_path / "b", wrong=0.5), latency=False)
    assert not report.ok
    assert report.numbers is not None
    assert report.numbers["max_rel"] == pytest.approx(0.5 / (tiny_reference(X).max() + 0.5), rel=1e-3)
    assert "'out/y:0'" in report.problems[0]


def test_a_model_that_does_not_run_is_a_problem_not_a_crash(tmp_path: Path) -> None:
    report = verify(make(tmp_path / "b", model=b"no model"))
    assert not report.ok
    assert "does not run here" in report.problems[0]


@pytest.mark.parametrize("name", ["model.onnx", "run.py", "card.md", "samples.npz"])
def test_one_flipped_bit_is_seen(tmp_path: Path, name: str) -> None:
    place = make(tmp_path / "b")
    content = bytearray((place / name).read_bytes())
    content[len(content) // 2] ^= 1
    (place / name).write_bytes(content)
    report = verify(place, numbers=False)
    assert report.changed == (name,)
    assert not report.ok


def test_missing_additional_and_linked_files_are_seen(tmp_path: Path) -> None:
    place = make(tmp_path / "b")
    (place / "metrics.json").unlink()
    (place / "payload.so").write_bytes(b"x")
    (place / "deep").mkdir()
    (place / "deep" / "er.txt").write_text("x")
    secret = tmp_path / "run.py"
    (place / "run.py").rename(secret)
    (place / "run.py").symlink_to(secret)
    report = verify(place)
    assert report.missing == ("metrics.json",)
    assert report.extra == ("deep/er.txt", "payload.so")
    assert report.problems == ("run.py: is no regular file",)
    assert report.numbers is None  # nothing of a damaged bundle is run


def test_a_pipe_does_not_hang_it(tmp_path: Path) -> None:
    place = make(tmp_path / "b")
    (place / "card.md").unlink()
    os.mkfifo(place / "card.md")
    assert verify(place, numbers=False).problems == ("card.md: is no regular file",)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../b", "..\\x"])
def test_a_manifest_cannot_point_outside(tmp_path: Path, name: str) -> None:
    place = make(tmp_path / "b")
    body = json.loads((place / "manifest.json").read_text())
    body["files"][name] = {"sha256": SHA}
    (place / "manifest.json").write_text(json.dumps(body))
    with pytest.raises(RunError, match="outside the bundle"):
        verify(place)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": 3}', '{"files": {"model.onnx": 1}}'])
def test_a_damaged_manifest(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(RunError, match=r"manifest\.json"):
        verify(tmp_path)


def test_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="expected a bundle"):
        verify(tmp_path / "nothing")


def test_compare_takes_the_worst_output() -> None:
    one, two = np.array([1.0, 2.0]), np.array([10.0, -20.0])
    found = compare({"a": one, "b": two + [0.0, 0.1]}, {"a": one, "b": two})
    assert found["output"] == "b"
    assert found["max_rel"] == pytest.approx(0.005)
    assert not found["ok"]
    assert compare({"a": one[:1]}, {"a": one})["max_rel"] is None
    assert not compare({"a": one * np.nan}, {"a": one})["ok"]
    assert compare({"a": one}, {"a": one})["ok"]
    assert not compare({"a": one * 1.04}, {"a": one})["ok"]
    assert compare({"a": one * 1.04}, {"a": one}, TOLERANCE_8_BITS)["ok"]
    assert not compare({"a": one * 1.06}, {"a": one}, TOLERANCE_8_BITS)["ok"]


def test_feeds_get_the_batch_they_were_measured_with() -> None:
    feeds = with_batch({"x": X, "scale": np.float32(2.0), "mask": X[:, 0]}, 6)
    np.testing.assert_array_equal(feeds["x"], np.concatenate([X, X[:2]]))
    assert feeds["mask"].shape == (6,)
    assert feeds["scale"].shape == ()
    assert with_batch({"x": X}, 1)["x"].shape == (1, 3)
