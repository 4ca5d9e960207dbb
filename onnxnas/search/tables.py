"""`trials.csv`: every trial of a search as a row, for people and spreadsheets."""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from onnxnas.errors import RunError
from onnxnas.types import CHOICES, Cost, Measurement, Objective, Subnet, Trial


def write_trials_csv(
    path: str | Path,
    trials: Sequence[Trial],
    objectives: Sequence[Objective],
    cost: Callable[[Subnet], Cost],
) -> Path:
    """Writes number, status, seconds, error, objectives with intervals, macs, params and sub-network.

    `cost` is the search space's. Values that are absent (failed trials) are empty cells; intervals are the
    columns NAME_lo and NAME_hi; the sub-network is JSON text. An objective called macs or params is its own
    column. The file appears whole or not at all.
    """
    names = [o.name for o in objectives]
    costs = [c for c in ("macs", "params") if c not in names]
    intervals = [f"{n}_{end}" for n in names for end in ("lo", "hi")]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(
        text,
        ["number", "status", "seconds", "error", *names, *intervals, *costs, *CHOICES],
        lineterminator="\n",
    )
    writer.writeheader()
    for t in trials:
        row: dict[str, object] = {
            "number": t.number, "status": t.status, "seconds": repr(t.seconds), "error": t.error
        }  # fmt: skip
        for n in names:
            row[n] = repr(float(t.values[n])) if n in t.values else ""
            if (m := t.measurements.get(n)) is not None:
                row[f"{n}_lo"], row[f"{n}_hi"] = repr(float(m.low)), repr(float(m.high))
        spent = cost(t.subnet)
        row |= {c: getattr(spent, c) for c in costs}
        body = t.subnet.to_json()
        row |= {c: json.dumps(body.get(c, {})) for c in CHOICES}
        writer.writerow(row)
    return _write_atomic(Path(path), text.getvalue())


def read_trials_csv(path: str | Path, objectives: Sequence[Objective]) -> list[Trial]:
    """The inverse of `write_trials_csv`, as far as the file goes: intervals lose their n and protocol.

    Raises:
        RunError: a column is missing or a cell cannot be read; says which line.
    """
    trials = []
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        for row in reader:
            try:
                trials.append(_trial(row, objectives))
            except (KeyError, TypeError, ValueError) as error:
                raise RunError(f"{path} line {reader.line_num}: cannot be read: {error!r}") from error
    return trials


def _trial(row: dict[str, str], objectives: Sequence[Objective]) -> Trial:
    values = {o.name: float(row[o.name]) for o in objectives if row[o.name]}
    measurements = {
        o.name: Measurement(
            values[o.name], float(row[f"{o.name}_lo"]), float(row[f"{o.name}_hi"]), 0, o.unit, "table"
        )
        for o in objectives
        if row.get(f"{o.name}_lo")
    }
    told = {"serving": "{}", **row}  # tables of before have no such column
    subnet = Subnet.from_json({c: json.loads(told[c]) for c in CHOICES})
    status = row["status"]
    if status not in ("ok", "refused", "crashed", "timeout", "oom", "invalid"):
        raise ValueError(f"status {status!r}")
    return Trial(
        int(row["number"]),
        subnet,
        status,  # type: ignore[arg-type]  # one of the literals, just checked
        values,
        measurements,
        float(row["seconds"]),
        row["error"],
    )


def _write_atomic(path: Path, text: str) -> Path:
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(draft, 0o644)
        os.replace(draft, path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
    return path
