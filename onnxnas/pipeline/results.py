"""What a run found: which members stay, which one is best, and how that is written down."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from onnxnas import search
from onnxnas.pipeline.objectives import gain, within
from onnxnas.types import Measurement, Objective, Subnet, Trial

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, eq=False)
class Member:
    """A finished model: fine-tuned, folded, measured with the long protocol."""

    number: int
    subnet: Subnet
    model: bytes
    quality: float
    val_quality: float
    macs: int
    params: int
    p50: Measurement
    speedup: Measurement
    throughput: Measurement
    others: Mapping[str, float] = field(default_factory=dict)  # of other objectives
    samples: float = 1.0  # of one inference, relative to the baseline's

    def figures(self) -> dict[str, float]:
        """Values by objective name, to compare members with each other.

        Time is told by the speed-up, which is measured in turns with the baseline: members are measured one
        after the other, and the machine is not the same in two minutes.
        """
        return {
            "quality": self.quality,
            "latency_ms": self.samples / self.speedup.value,
            "throughput": self.speedup.value,
            "macs": float(self.macs),
            "params": float(self.params),
            "bytes": float(len(self.model)),
            **self.others,
        }

    def absolute(self) -> dict[str, float]:
        """Values by objective name in their units, to hold against limits."""
        return {**self.figures(), "latency_ms": self.p50.value, "throughput": self.throughput.value}

    def to_json(self, bundle: str | None) -> dict[str, Any]:
        """Its entry in result.json; a member without a bundle is dominated by another one."""
        return {
            "bundle": bundle,
            "subnet": self.subnet.to_json(),
            "quality": self.quality,
            "val_quality": self.val_quality,
            "latency_ms": interval(self.p50, "p50"),
            "throughput": interval(self.throughput, "value"),
            "macs": self.macs,
            "params": self.params,
            "bytes": len(self.model),
            "speedup": interval(self.speedup, "value"),
            **({"figures": dict(self.others)} if self.others else {}),
        }


def interval(figure: Measurement, name: str) -> dict[str, float]:
    """{name, "lo", "hi"}."""
    return {name: figure.value, "lo": figure.low, "hi": figure.high}


def ranked(
    members: Sequence[Member], objectives: Sequence[Objective], floor: float
) -> tuple[list[Member], Member | None]:
    """The members that no other dominates, and the best of them or None.

    The best gains most over all objectives but quality together (`objectives.gain`), among those whose quality is at
    least `floor`, that keep all limits and whose interval of the measured speed-up lies above 1. It comes first; the
    others follow by quality, best first.
    """
    free = [dataclasses.replace(objective, limit=None) for objective in objectives]
    trials = {m.number: Trial(m.number, m.subnet, "ok", m.figures()) for m in members}
    front = {trial.number for trial in search.pareto(list(trials.values()), free)}
    kept = [member for member in members if member.number in front]
    able = [
        member
        for member in kept
        if member.quality >= floor and member.speedup.low > 1.0 and within(member.absolute(), objectives)
    ]
    best = max(able, key=lambda m: gain(m.figures(), able[0].figures(), objectives[1:]), default=None)
    rest = sorted((m for m in kept if m is not best), key=lambda m: (-m.quality, m.number))
    return ([best, *rest] if best is not None else rest), best


PARETO_COLUMNS = (
    "rank",
    "bundle",
    "quality",
    "latency_ms_p50",
    "latency_ms_lo",
    "latency_ms_hi",
    "speedup",
    "speedup_lo",
    "speedup_hi",
    "macs",
    "params",
    "bytes",
    "subnet",
)


def pareto_csv(entries: Sequence[Mapping[str, Any]]) -> str:
    """pareto.csv of the "pareto" entries of result.json."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(PARETO_COLUMNS)
    for rank, entry in enumerate(entries, 1):
        latency, speedup = entry["latency_ms"], entry["speedup"]
        writer.writerow(
            [
                rank,
                entry["bundle"],
                repr(entry["quality"]),
                *(repr(latency[key]) for key in ("p50", "lo", "hi")),
                *(repr(speedup[key]) for key in ("value", "lo", "hi")),
                entry["macs"],
                entry["params"],
                entry["bytes"],
                json.dumps(entry["subnet"]),
            ]
        )
    return text.getvalue()


@dataclass(frozen=True, eq=False)
class Result:
    """A finished run, read from its directory. `body` is result.json."""

    directory: Path
    body: Mapping[str, Any]

    @property
    def best(self) -> Mapping[str, Any] | None:
        """The recommended member, or None when none is measurably faster within the allowed drop."""
        found: Mapping[str, Any] | None = self.body["best"]
        return found

    @property
    def pareto(self) -> list[Mapping[str, Any]]:
        """All members of the final front, best first."""
        return list(self.body["pareto"])

    def to_rows(self) -> list[dict[str, Any]]:
        """The front as flat rows, one a member, for a table or a data frame: `pandas.DataFrame(rows)`."""
        rows = []
        for entry in self.pareto:
            latency, speedup = entry["latency_ms"], entry["speedup"]
            row = {key: entry[key] for key in ("bundle", "quality", "macs", "params", "bytes")}
            row |= {f"latency_ms_{key}": value for key, value in latency.items()}
            row |= {"speedup": speedup["value"], "speedup_lo": speedup["lo"], "speedup_hi": speedup["hi"]}
            rows.append(row)
        return rows

    def to_dataframe(self) -> Any:
        """The front as a pandas DataFrame. Raises EnvironmentProblem without pandas."""
        import importlib

        from onnxnas.errors import EnvironmentProblem

        try:
            pandas = importlib.import_module("pandas")
        except ImportError as error:
            raise EnvironmentProblem(
                "to_dataframe needs pandas: pip install pandas, or use to_rows()"
            ) from error
        return pandas.DataFrame(self.to_rows())

    def save(self, directory: str | Path, rank: int = 1) -> Path:
        """Copy the bundle of the member of that rank to a new directory and return it. Raises ConfigError."""
        import shutil
        from pathlib import Path

        from onnxnas.errors import ConfigError

        target = Path(directory)
        if not 1 <= rank <= len(self.pareto):
            raise ConfigError(f"save: got rank {rank}, expected 1 to {len(self.pareto)}")
        if target.exists():
            raise ConfigError(f"save: {target} is there already; give a new directory")
        shutil.copytree(self.directory / self.pareto[rank - 1]["bundle"], target)
        return target
