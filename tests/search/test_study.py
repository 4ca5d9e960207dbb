"""What is in the Optuna storage, read back by Optuna itself."""

from __future__ import annotations

import json
import logging
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from onnxnas.errors import EnvironmentProblem, RunError
from onnxnas.search import Problem, SearchSettings, Study, load_trials, run, sqlite_url
from onnxnas.search.study import identity
from onnxnas.types import Measurement, Subnet, Trial
from tests.search.search_fakes import NETWORK, FakeSpace, NetworkEvaluator

SPACE = FakeSpace(blocks=3, free=2, steps=4)
SETTINGS = SearchSettings(population=6, max_trials=8)


def opened(url: str, space: FakeSpace = SPACE) -> Study:
    problem = Problem(space, NETWORK)
    return Study.open(url, "search", problem, identity(problem, 1, {"algorithm": "nsga2"}))


def test_optuna_reads_the_study(url: str) -> None:
    trials = run(SPACE, NetworkEvaluator(SPACE, {4: "timeout"}), NETWORK, SETTINGS, url, seed=1)
    study = optuna.load_study(study_name="search", storage=url)
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert study.metric_names == ["quality", "latency"]
    assert len(study.trials) == 8
    for ours, theirs in zip(trials, study.trials, strict=True):
        assert theirs.number == ours.number
        attributes = theirs.user_attrs
        assert attributes["status"] == ours.status
        assert Subnet.from_json(attributes["subnet"]) == ours.subnet
        if ours.status == "ok":
            assert theirs.state.name == "COMPLETE"
            assert theirs.values == [ours.values["quality"], ours.values["latency"]]
            assert attributes["measurements"]["latency"]["lo"] == ours.measurements["latency"].low
            assert theirs.duration.total_seconds() == pytest.approx(ours.seconds, abs=1e-3)
        else:
            assert theirs.state.name == "FAIL"
            assert attributes["error"] == ours.error
        # the readable parameters say the same as the genotype
        choices = {
            d.name: d.choices[i] for d, i in zip(SPACE.dimensions, attributes["genotype"], strict=True)
        }
        assert theirs.params == choices
    best = {t.number for t in study.best_trials}
    assert best
    assert best <= {t.number for t in trials if t.status == "ok"}
    body = study.user_attrs["onnxnas"]
    assert (body["model"], body["space"], body["seed"]) == ("a" * 64, SPACE.digest, 1)
    assert body["settings"]["population"] == 6


def test_a_trial_comes_back_as_it_was(url: str) -> None:
    trial = Trial(
        0,
        Subnet(frozenset({"b2"}), {"g0": np.int64(3)}),
        "ok",
        {"quality": np.float64(0.1) + 0.2, "latency": 1 / 3, "macs": 12345.0},
        {"latency": Measurement(np.float64(1 / 3), 0.3, 0.4, np.int64(50), "ms", "short")},
        1.25,
        environment="host 1",
    )
    failed = Trial(1, Subnet(), "oom", {}, error="killed\nbecause", seconds=0.5)
    with opened(url) as study:
        assert study.next_number == 0
        study.add(trial, np.array([0, 0, 1, 1, 0, 0, 0, 0]))
        assert [r.trial for r in study.news()] == [trial]
        study.add(failed, np.zeros(8, int))
        assert [r.trial for r in study.news()] == [failed]
        assert study.news() == []
        assert study.next_number == 2
    with opened(url) as study:
        records = study.load()
        assert study.next_number == 2
    assert [r.trial for r in records] == [trial, failed]
    assert records[0].genotype.tolist() == [0, 0, 1, 1, 0, 0, 0, 0]


def test_many_dimensions_are_one_attribute(url: str) -> None:
    space = FakeSpace(blocks=20, free=5, steps=4)
    with opened(url, space) as study:
        study.add(Trial(0, Subnet(), "ok", {"quality": 1.0, "latency": 2.0}), np.zeros(45, int))
    stored = optuna.load_study(study_name="search", storage=url).trials[0]
    assert stored.params == {}
    assert stored.user_attrs["genotype"] == [0] * 45


def test_optuna_says_nothing_and_its_settings_stay(
    url: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = logging.getLogger("optuna")
    monkeypatch.setattr(logger, "level", logging.INFO)
    run(SPACE, NetworkEvaluator(SPACE), NETWORK, SETTINGS, url, seed=1)
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")
    assert logger.level == logging.INFO


def test_load_trials_needs_no_seed(url: str, tmp_path: Path) -> None:
    trials = run(SPACE, NetworkEvaluator(SPACE), NETWORK, SETTINGS, url, seed=1)
    assert load_trials(url, "search", Problem(SPACE, NETWORK)) == trials
    with pytest.raises(RunError, match="space: there"):
        load_trials(url, "search", Problem(FakeSpace(1, 1, 2), NETWORK))
    with pytest.raises(RunError, match="no study 'other'"):
        load_trials(url, "other", Problem(SPACE, NETWORK))
    absent = tmp_path / "absent.db"
    with pytest.raises(RunError, match=r"no trial storage .*absent\.db"):
        load_trials(sqlite_url(absent), "search", Problem(SPACE, NETWORK))
    assert not absent.exists()


def test_two_studies_in_one_storage(url: str) -> None:
    one = run(SPACE, NetworkEvaluator(SPACE), NETWORK, SETTINGS, url, seed=1, study_name="one")
    two = run(SPACE, NetworkEvaluator(SPACE), NETWORK, SETTINGS, url, seed=2, study_name="two")
    assert one != two
    assert [t.number for t in two] == list(range(8))


def test_a_study_made_by_something_else_is_left_alone(url: str) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    theirs = optuna.create_study(storage=url, study_name="search", directions=["maximize", "minimize"])
    theirs.add_trial(optuna.trial.create_trial(values=[1.0, 2.0]))
    with pytest.raises(RunError, match="not made by onnxnas"):
        opened(url)
    assert len(theirs.trials) == 1


def test_a_study_killed_before_it_had_an_identity_is_begun_again(url: str) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    optuna.create_study(storage=url, study_name="search", directions=["maximize", "minimize"])
    assert len(run(SPACE, NetworkEvaluator(SPACE), NETWORK, SETTINGS, url, seed=1)) == 8


@pytest.mark.parametrize(
    ("content", "error"), [(b"not a database at all" * 99, RunError), (None, EnvironmentProblem)]
)
def test_a_storage_that_cannot_be_used(tmp_path: Path, content: bytes | None, error: type[Exception]) -> None:
    path = tmp_path / "study.db" if content else tmp_path / "absent" / "study.db"
    if content:
        path.write_bytes(content)
    with pytest.raises(error) as caught:
        opened(sqlite_url(path))
    assert "study.db" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_kind_of_storage() -> None:
    with pytest.raises(EnvironmentProblem, match="nosuch"):
        opened("nosuch://host/db")


def test_a_damaged_trial_is_said(url: str, tmp_path: Path) -> None:
    run(SPACE, NetworkEvaluator(SPACE), NETWORK, SETTINGS, url, seed=1)
    wrong: dict[str, Any] = {"skip": 5}
    connection = sqlite3.connect(tmp_path / "study.db")
    connection.execute(
        "UPDATE trial_user_attributes SET value_json = ? WHERE key = 'subnet'", (json.dumps(wrong),)
    )
    connection.commit()
    connection.close()
    with pytest.raises(RunError, match="damaged"):
        run(SPACE, NetworkEvaluator(SPACE), NETWORK, SETTINGS, url, seed=1)
