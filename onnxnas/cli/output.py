"""What the user sees: progress and lines on stderr, tables and JSON on stdout."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from onnxnas.pipeline.files import dumps


def document(body: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(dumps(body) + "\n")


def line(text: str) -> None:
    """One line on stdout."""
    print(text)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout; the first column is text, the others are figures."""
    drawn = Table(title=title, title_justify="left", header_style="bold")
    for index, column in enumerate(columns):
        drawn.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
    for row in rows:
        drawn.add_row(*row)
    width = None if sys.stdout.isatty() else 140
    Console(file=sys.stdout, width=width, highlight=False).print(drawn)


class PlainReporter:
    """Lines on stderr; progress at most every ten seconds."""

    def __init__(self, interval: float = 10.0) -> None:
        self._interval = interval
        self._last: dict[str, float] = {}

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def step(self, stage: str, done: float, total: float, text: str = "") -> None:
        now = time.monotonic()
        if done < total and now - self._last.get(stage, -self._interval) < self._interval:
            return
        self._last[stage] = now
        share = 100 * done / total if total else 100
        print(f"{stage}: {share:.0f} % {text}".rstrip(), file=sys.stderr, flush=True)


class RichReporter:
    """Progress bars on a terminal."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def say(self, text: str) -> None:
        self._progress.console.print(text, highlight=False, markup=False)

    def step(self, stage: str, done: float, total: float, text: str = "") -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total, text="")
        self._progress.update(self._tasks[stage], completed=done, total=total, text=text)


@contextmanager
def reporter() -> Iterator[PlainReporter | RichReporter]:
    """Bars where stderr is a terminal, plain lines elsewhere."""
    if not sys.stderr.isatty():
        yield PlainReporter()
        return
    columns = (
        TextColumn("{task.description:9}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield RichReporter(progress)


def results(body: Mapping[str, Any], run: str) -> None:
    """The final table: baseline against what was found, with paths."""
    rows = [_row("baseline", body["baseline"], None)]
    best = body.get("best")
    for member in body["pareto"]:
        name = member["bundle"].rstrip("/").rpartition("/")[2]
        chosen = best is not None and member["bundle"] == best["bundle"]
        subnet = member["subnet"]
        told = [
            *subnet.get("precision", {}).values(),
            *(f"{k} {v}" for k, v in subnet.get("serving", {}).items()),
        ]
        name = f"{name} ({', '.join(told)})" if told else name
        rows.append(_row(f"{name} *" if chosen else name, member, member["speedup"]))
    unit = (body.get("metric") or {}).get("unit") or ""
    table(
        f"{run}: baseline and found models (* best)",
        ("model", f"quality {unit}".strip(), "MACs", "latency ms (95 %)", "speed-up (95 %)", "bytes"),
        rows,
    )
    for note in body.get("notes", ()):
        line(note)
    if best is not None:
        line(f"bundle  {run}/{best['bundle']}")
    line(f"report  {run}/report.html")


def _row(name: str, member: Mapping[str, Any], speedup: Mapping[str, Any] | None) -> tuple[str, ...]:
    latency = member["latency_ms"]
    faster = "1" if speedup is None else f"{speedup['value']:.2f} ({speedup['lo']:.2f}-{speedup['hi']:.2f})"
    return (
        name,
        f"{member['quality']:.2f}",
        thousands(member["macs"]),
        f"{latency['p50']:.3f} ({latency['lo']:.3f}-{latency['hi']:.3f})",
        faster,
        thousands(member["bytes"]),
    )


def thousands(number: float) -> str:
    """12,345."""
    return f"{number:,.0f}"
