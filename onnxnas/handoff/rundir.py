"""The files of a run directory as plain values, for the report.

A report is also wanted of a run that stopped half way: what is absent is None or empty and damage becomes a
sentence in `problems`; only a directory that is no run at all is an error. Nothing here is trusted.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from onnxnas.errors import RunError
from onnxnas.types import CHOICES, Subnet

_ENDS = ("_lo", "_hi")
_PLAIN = {"number", "status", "seconds", "error", *CHOICES}


@dataclass(frozen=True)
class TrialRow:
    """One line of trials.csv. `values` holds every numeric column that is filled in."""

    number: int
    status: str
    error: str
    values: Mapping[str, float]
    subnet: Subnet


@dataclass(frozen=True)
class Member:
    """One Pareto member after the final measurement; figures that are unknown are NaN."""

    bundle: str
    subnet: Subnet
    quality: float
    latency: tuple[float, float, float]  # p50, low, high in ms
    speedup: tuple[float, float, float]
    macs: float
    params: float
    bytes: float


@dataclass(frozen=True)
class Training:
    """The rows of supernet/log.jsonl: steps, and evaluations by name of the sub-network."""

    steps: Sequence[Mapping[str, float]]
    evaluations: Sequence[tuple[float, Mapping[str, float]]]


@dataclass(frozen=True)
class RunFiles:
    """A run, as far as it has come."""

    directory: Path
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    space: Mapping[str, Any]
    result: Mapping[str, Any]
    baseline: Member | None
    members: Sequence[Member]
    best: str
    trials: Sequence[TrialRow]
    training: Training
    predictors: Sequence[Mapping[str, Any]] = ()  # the rounds of predictors.json
    problems: Sequence[str] = field(default_factory=list)


def read(directory: str | Path) -> RunFiles:
    """Read a run directory. Raises RunError if none of a run's files is in it."""
    place = Path(directory)
    known = ("config.yaml", "space.json", "trials.csv", "pareto.csv", "result.json", "supernet/log.jsonl")
    if not any((place / name).is_file() for name in known):
        raise RunError(f"{place}: no run is here: found none of {', '.join(known)}; give the directory of -o")
    problems: list[str] = []
    result = _document(place / "result.json", problems)
    members = _members(place / "pareto.csv", result, problems)
    base = result.get("baseline")
    best = result.get("best")
    return RunFiles(
        directory=place,
        config=_document(place / "config.yaml", problems),
        environment=_document(place / "environment.json", problems),
        space=_document(place / "space.json", problems),
        result=result,
        baseline=_member(base) if isinstance(base, Mapping) else None,
        members=members,
        best=str(best.get("bundle", "")) if isinstance(best, Mapping) else "",
        trials=_trials(place / "trials.csv", problems),
        training=_training(place / "supernet" / "log.jsonl", problems),
        predictors=_rounds(_document(place / "predictors.json", problems)),
        problems=problems,
    )


def number(value: Any) -> float:
    """A float, or NaN for whatever is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def objectives(trials: Sequence[TrialRow]) -> list[str]:
    """The measured columns in their order: those with an interval first, then macs, params and others."""
    names: dict[str, None] = {}
    for trial in trials:
        names.update(dict.fromkeys(trial.values))
    plain = [name for name in names if not name.endswith(_ENDS)]
    return [name for name in plain if f"{name}_lo" in names] + [n for n in plain if f"{n}_lo" not in names]


def _document(file: Path, problems: list[str]) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        text = file.read_text(encoding="utf-8")
        body = yaml.safe_load(text) if file.suffix == ".yaml" else json.loads(text)
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        problems.append(f"{file.name} cannot be read: {str(error).splitlines()[0]}")
        return {}
    if not isinstance(body, dict):
        problems.append(f"{file.name} holds no mapping")
        return {}
    return body


def _table(file: Path, problems: list[str]) -> list[dict[str, str]]:
    if not file.is_file():
        return []
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            rows = [
                {k: v for k, v in row.items() if k and isinstance(v, str)} for row in csv.DictReader(stream)
            ]
    except (OSError, ValueError, csv.Error) as error:
        problems.append(f"{file.name} cannot be read: {error}")
        return []
    return rows


def _trials(file: Path, problems: list[str]) -> list[TrialRow]:
    trials = []
    for line, row in enumerate(_table(file, problems), 2):
        try:
            body = {key: json.loads(row.get(key) or "{}") for key in CHOICES}
            values = {k: number(v) for k, v in row.items() if k not in _PLAIN}
            finite = {key: value for key, value in values.items() if math.isfinite(value)}
            status, error = row.get("status", ""), row.get("error", "")
            trials.append(TrialRow(int(row["number"]), status, error, finite, Subnet.from_json(body)))
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            problems.append(f"{file.name} line {line} cannot be read: {error!r:.120}")
    return trials


def _rounds(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    rounds = body.get("rounds")
    return [one for one in rounds if isinstance(one, Mapping)] if isinstance(rounds, list) else []


def _members(file: Path, result: Mapping[str, Any], problems: list[str]) -> list[Member]:
    rows = _table(file, problems)
    bodies: Any = result.get("pareto") or []
    if rows:
        bodies = [
            {
                **row,
                "latency_ms": {end: row.get(f"latency_ms_{end}") for end in ("p50", "lo", "hi")},
                "speedup": {
                    "value": row.get("speedup"),
                    "lo": row.get("speedup_lo"),
                    "hi": row.get("speedup_hi"),
                },
            }
            for row in rows
        ]
    members = []
    for body in bodies:
        try:
            members.append(_member(body))
        except (ValueError, TypeError, AttributeError) as error:
            problems.append(f"{file.name}: a member cannot be read: {error!r:.120}")
    return members


def _member(body: Mapping[str, Any]) -> Member:
    latency, speedup = body.get("latency_ms") or {}, body.get("speedup") or {}
    subnet = body.get("subnet") or {}
    if isinstance(subnet, str):
        subnet = json.loads(subnet)
    return Member(
        bundle=str(body.get("bundle") or ""),
        subnet=Subnet.from_json(subnet),
        quality=number(body.get("quality")),
        latency=(number(latency.get("p50")), number(latency.get("lo")), number(latency.get("hi"))),
        speedup=(number(speedup.get("value")), number(speedup.get("lo")), number(speedup.get("hi"))),
        macs=number(body.get("macs")),
        params=number(body.get("params")),
        bytes=number(body.get("bytes")),
    )


def _training(file: Path, problems: list[str]) -> Training:
    steps: list[dict[str, float]] = []
    evaluations: list[tuple[float, dict[str, float]]] = []
    if file.is_file():
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        for i, line in enumerate(lines):
            try:
                row = json.loads(line)
                if isinstance(row.get("eval"), dict):
                    values = {str(k): number(v) for k, v in row["eval"].items()}
                    evaluations.append((number(row.get("epoch", len(evaluations))), values))
                elif "loss" in row:
                    steps.append({k: number(v) for k, v in row.items() if isinstance(v, int | float)})
            except (ValueError, AttributeError) as error:
                if i < len(lines) - 1:  # the last line of a run that was killed may be torn
                    problems.append(f"supernet/log.jsonl line {i + 1} cannot be read: {error}")
    return Training(steps, evaluations)
