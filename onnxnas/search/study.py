"""Trials in an Optuna storage: one finished trial is one transaction, so a killed search loses none.

A study is a study of one space, one model, one list of objectives and one sequence of candidates; this
identity is stored with it and compared when it is opened again. Failed candidates are trials of state FAIL.
User attributes of a trial: `genotype` (list of indices), `subnet`, `status`, `seconds`, `measurements`, and
where there is something to say `error`, `environment`, `other_values`. Spaces of few dimensions also have
each choice as an Optuna parameter; with many that would cost more than all the rest (a row per parameter).
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import optuna
import sqlalchemy.exc
from optuna.distributions import CategoricalDistribution
from optuna.exceptions import OptunaError
from optuna.trial import FrozenTrial, TrialState

from onnxnas.errors import EnvironmentProblem, RunError
from onnxnas.search.claims import Claims
from onnxnas.search.problem import Dimension, Genotype, Problem
from onnxnas.search.quiet import quiet
from onnxnas.types import Measurement, Objective, Subnet, Trial

SCHEMA = 1
IDENTITY = "onnxnas"
"""Name of the user attribute of a study that holds its identity."""
READABLE = 16
"""Up to so many dimensions, choices are stored as Optuna parameters too (about 0.7 ms each in SQLite)."""


def sqlite_url(path: str | Path) -> str:
    """The storage URL of a SQLite file."""
    return f"sqlite:///{Path(path).absolute()}"


def identity(problem: Problem, seed: int, sequence: Mapping[str, object]) -> dict[str, Any]:
    """What a study is of; `sequence` has the settings that decide which candidates are proposed.

    Limits are rounded to 6 digits, since they may come from measurements.
    """
    prior = {} if problem.prior is None else {"prior": problem.prior.digest}
    return {
        **prior,
        "schema": SCHEMA,
        "model": problem.space.graph.digest,
        "space": problem.space.digest,
        "objectives": [_objective(o) for o in problem.objectives],
        "seed": seed,
        "settings": dict(sequence),
    }


def _objective(o: Objective) -> str:
    limit = "" if o.limit is None else f" {'>=' if o.maximise else '<='} {o.limit:.6g}"
    return f"{'maximise' if o.maximise else 'minimise'} {o.name} [{o.unit}]{limit}"


def differences(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """'what: stored, wanted' for every entry that is not the same."""
    found = []
    for key in sorted(stored.keys() | wanted.keys()):
        a, b = stored.get(key), wanted.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += [f"{key}.{line}" for line in differences(a, b)]
        elif a != b:
            found.append(f"{key}: there {_brief(a)}, here {_brief(b)}")
    return found


def _brief(value: Any) -> str:
    text = "; ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text[:12] if len(text) == 64 and " " not in text else text


@dataclass(frozen=True)
class Record:
    """A stored trial and the genotype it was proposed as."""

    trial: Trial
    genotype: Genotype


class Study:
    """The trials of one search. A context manager.

    `next_number` is the number of the next trial, as far as `load` and `news` know.
    """

    def __init__(self, study: optuna.Study, problem: Problem, storage: optuna.storages.BaseStorage) -> None:
        self._study = study
        self._problem = problem
        self._storage = storage
        self._distributions = _distributions(problem.space.dimensions)
        self.next_number = 0
        self._claims: Claims | None = None

    @classmethod
    def open(cls, url: str, name: str, problem: Problem, wanted: Mapping[str, Any]) -> Study:
        """Creates the study or opens an existing one of the same identity (`identity`).

        Raises:
            RunError: the study is of something else (all differences are listed), or damaged.
            EnvironmentProblem: the storage cannot be reached.
        """
        with _plain_errors(url):
            storage = optuna.storages.get_storage(url)
            with quiet():
                study = optuna.create_study(
                    storage=storage,
                    study_name=name,
                    directions=["maximize" if o.maximise else "minimize" for o in problem.objectives],
                    load_if_exists=True,
                )
                stored = study.user_attrs.get(IDENTITY)
                if stored is None and not study.get_trials(deepcopy=False):
                    study.set_metric_names([o.name for o in problem.objectives])
                    study.set_user_attr(IDENTITY, dict(wanted))
                    stored = wanted
            opened = cls(study, problem, storage)
        if stored is None:
            opened.close()
            raise RunError(f"study {name!r} in {url} was not made by onnxnas: use another storage or name")
        if lines := differences(stored, wanted):
            opened.close()
            raise RunError(
                f"study {name!r} in {url} is of another search ({' | '.join(lines)}): "
                "resume it with what it was started with, or start a new run"
            )
        return opened

    def load(self) -> list[Record]:
        """All finished trials, in the order of their numbers."""
        self.next_number = 0
        return self.news()

    def news(self) -> list[Record]:
        """The finished trials since the last look, of this process and of others."""
        with _plain_errors(self._study.study_name):
            stored = self._study.get_trials(deepcopy=False)[self.next_number :]
        self.next_number += len(stored)
        finished = (TrialState.COMPLETE, TrialState.FAIL)
        try:
            return [self._read(t) for t in stored if t.state in finished and "genotype" in t.user_attrs]
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"study {self._study.study_name!r} is damaged: {error!r}") from error

    @contextmanager
    def claimed(self, key: str) -> Iterator[bool]:
        """Whether a candidate is this process's to evaluate, for as long as the context lasts."""
        with _plain_errors(self._study.study_name):
            if self._claims is None:
                self._claims = Claims(self._storage, self._study.study_name)
            mine = self._claims.take(key)
        try:
            yield mine
        finally:
            if mine:
                with _plain_errors(self._study.study_name):
                    self._claims.release(key)

    def add(self, trial: Trial, genotype: Genotype) -> None:
        """Stores a finished trial, whole or not at all.

        Raises:
            EnvironmentProblem: the storage refused (disk full, connection lost).
        """
        with _plain_errors(self._study.study_name):
            self._study.add_trial(self._write(trial, genotype))

    def close(self) -> None:
        """Ends the connection to the storage."""
        _disconnect(self._storage)

    def __enter__(self) -> Study:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, trial: Trial, genotype: Genotype) -> FrozenTrial:
        names = [o.name for o in self._problem.objectives]
        said = {"error": trial.error, "environment": trial.environment}
        others = {k: v for k, v in trial.values.items() if k not in names}
        attributes: dict[str, Any] = {
            "genotype": genotype.tolist(),
            "subnet": trial.subnet.to_json(),
            "status": trial.status,
            "seconds": trial.seconds,
            "measurements": {
                k: {**m.to_json(), "protocol": m.protocol} for k, m in trial.measurements.items()
            },
            **{k: v for k, v in said.items() if v},
            **({"other_values": others} if others else {}),
        }
        ok = trial.status == "ok"
        params = {
            name: distribution.choices[int(i)]
            for (name, distribution), i in zip(self._distributions.items(), genotype, strict=False)
        }
        frozen = optuna.trial.create_trial(
            state=TrialState.COMPLETE if ok else TrialState.FAIL,
            values=[float(trial.values[n]) for n in names] if ok else None,
            params=params,
            distributions=dict(self._distributions),
            user_attrs=_plain_json(attributes),
        )
        end = datetime.datetime.now()
        frozen.datetime_start = end - datetime.timedelta(seconds=trial.seconds)
        frozen.datetime_complete = end
        return frozen

    def _read(self, frozen: FrozenTrial) -> Record:
        a = frozen.user_attrs
        names = [o.name for o in self._problem.objectives]
        values = dict(zip(names, frozen.values, strict=True)) if a["status"] == "ok" else {}
        measurements = {
            k: Measurement(m["value"], m["lo"], m["hi"], m["n"], m["unit"], m["protocol"])
            for k, m in a["measurements"].items()
        }
        trial = Trial(
            number=frozen.number,
            subnet=Subnet.from_json(a["subnet"]),
            status=a["status"],
            values={**values, **a.get("other_values", {})},
            measurements=measurements,
            seconds=a["seconds"],
            error=a.get("error", ""),
            environment=a.get("environment", ""),
        )
        return Record(trial, np.array(a["genotype"], dtype=np.int64))


def load_trials(url: str, name: str, problem: Problem) -> list[Trial]:
    """The trials of an existing study, whatever its seed and settings; nothing is created.

    Raises:
        RunError: there is no such study, it is not of this space and these objectives, or it is damaged.
    """
    path = url.removeprefix("sqlite:///").partition("?")[0]
    if path != url and not Path(path).is_file():
        raise RunError(f"there is no trial storage {path}")
    with _plain_errors(url):
        storage = optuna.storages.get_storage(url)
        try:
            study = optuna.load_study(study_name=name, storage=storage)
        except KeyError as error:
            _disconnect(storage)
            raise RunError(f"there is no study {name!r} in {url}") from error
        stored = dict(study.user_attrs.get(IDENTITY, {}))
    with Study(study, problem, storage) as opened:
        wanted = {**identity(problem, 0, {}), "seed": stored.get("seed"), "settings": stored.get("settings")}
        if lines := differences(stored, wanted):
            raise RunError(f"study {name!r} in {url} is of another search ({' | '.join(lines)})")
        return [record.trial for record in opened.load()]


def _disconnect(storage: optuna.storages.BaseStorage) -> None:
    storage.remove_session()
    engine = getattr(getattr(storage, "_backend", storage), "engine", None)
    if engine is not None:
        engine.dispose()


def _distributions(dimensions: Sequence[Dimension]) -> dict[str, CategoricalDistribution]:
    if len(dimensions) > READABLE:
        return {}
    return {d.name: CategoricalDistribution([_readable(c) for c in d.choices]) for d in dimensions}


def _plain_json(body: dict[str, Any]) -> dict[str, Any]:
    """The same with Python's own numbers where there were numpy's."""
    plain: dict[str, Any] = json.loads(json.dumps(body, default=lambda value: value.item()))
    return plain


def _readable(choice: Any) -> bool | int | float | str:
    if isinstance(choice, (bool, np.bool_)):
        return bool(choice)
    if isinstance(choice, (int, np.integer)):
        return int(choice)
    if isinstance(choice, (tuple, list)):
        return "x".join(map(str, choice))
    return str(choice)


@contextmanager
def _plain_errors(where: str) -> Iterator[None]:
    """Turns the storage's errors into ours."""
    try:
        yield
    except ImportError as error:
        raise EnvironmentProblem(f"{where}: the database driver is not installed: {error}") from error
    except (sqlalchemy.exc.DatabaseError, sqlalchemy.exc.ArgumentError, OptunaError, OSError) as error:
        cause = error.__cause__ or error
        text = str(getattr(cause, "orig", None) or cause).splitlines()[0]
        if "not a database" in text or "malformed" in text:
            raise RunError(f"{where}: the trial storage is damaged: {text}") from error
        raise EnvironmentProblem(f"{where}: the trial storage cannot be used: {text}") from error
