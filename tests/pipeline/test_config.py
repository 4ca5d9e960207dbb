"""The configuration: precedence, all problems at once, the nearest key."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxnas.errors import ConfigError
from onnxnas.pipeline import config

NEEDED = {"model": "m.onnx", "data": "d.npz", "output": "run"}


def test_flags_win_over_file_over_preset(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("preset: quick\nseed: 3\nmax_drop: 2.5\nsearch: {population: 8}\n")
    resolved = config.resolve({**NEEDED, "seed": 7}, file)
    assert (resolved.seed, resolved.max_drop) == (7, 2.5)  # flag, file
    assert resolved.time_budget == config.PRESETS["quick"]["time_budget"]  # preset
    assert resolved.search.population == 8
    assert resolved.search.max_trials == config.PRESETS["quick"]["search"]["max_trials"]


def test_no_budget_can_be_said(tmp_path: Path) -> None:
    assert config.resolve({**NEEDED, "time_budget": None}).budget is None


def test_every_problem_at_once_with_the_nearest_key(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("sede: 3\nthreads: 0\ntrain: {epochz: 2}\nobjectives: [latancy]\n")
    with pytest.raises(ConfigError) as caught:
        config.resolve(NEEDED, file)
    text = str(caught.value)
    assert "\n" not in text
    for part in ("'sede'", "'seed'", "'threads'", "'train.epochz'", "'epochs'", "'latancy'", "'latency'"):
        assert part in text


@pytest.mark.parametrize("key", ["model", "data", "output"])
def test_missing_keys_are_named(key: str) -> None:
    with pytest.raises(ConfigError, match=f"'{key}' is missing"):
        config.resolve({k: v for k, v in NEEDED.items() if k != key})


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("30m", 1800), ("1.5h", 5400), (" 2 m ", 120)]
)
def test_times(text: str, seconds: float) -> None:
    assert config.resolve({**NEEDED, "time_budget": text}).budget == seconds


@pytest.mark.parametrize("text", ["", "0m", "-5m", "ten", "5d", "1:30"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a time"):
        config.resolve({**NEEDED, "time_budget": text})


def test_precisions_are_told_apart_and_kept_once() -> None:
    assert config.resolve({**NEEDED, "precision": ["fp32", "int8", "int8"]}).precision == ("fp32", "int8")
    assert config.resolve(NEEDED).least_opset == 1
    assert config.resolve({**NEEDED, "precision": ["int8"]}).least_opset == 13
    with pytest.raises(ConfigError, match="'fp32' or 'int8'"):
        config.resolve({**NEEDED, "precision": ["int4"]})
    with pytest.raises(ConfigError, match="precision"):
        config.resolve({**NEEDED, "precision": []})


def test_presets_resolve() -> None:
    budgets = [config.resolve({**NEEDED, "preset": name}).budget for name in ("quick", "default", "thorough")]
    assert budgets == sorted(budgets)
    with pytest.raises(ConfigError, match="preset"):
        config.resolve({**NEEDED, "preset": "fast"})


def test_saved_is_loaded(tmp_path: Path) -> None:
    resolved = config.resolve({**NEEDED, "shapes": {"x": [1, 3, 8, 8]}, "elastic": ["width"]})
    config.save(resolved, tmp_path / "config.yaml")
    assert config.load(tmp_path / "config.yaml") == resolved


def test_differences_are_listed() -> None:
    old = config.resolve(NEEDED)
    new = config.resolve({**NEEDED, "output": "elsewhere", "seed": 4, "train": {"epochs": 3}})
    assert config.differences(old, new) == ["seed: 0 -> 4", "train.epochs: 60.0 -> 3.0"]


def test_not_yaml(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("a: [1,\n")
    with pytest.raises(ConfigError, match="not YAML"):
        config.resolve(NEEDED, file)
    file.write_text("- 1\n")
    with pytest.raises(ConfigError, match="got a list"):
        config.resolve(NEEDED, file)
    with pytest.raises(ConfigError, match="cannot be read"):
        config.resolve(NEEDED, tmp_path / "none.yaml")
