"""Which real networks the tool understands: a table made by `onnxnas inspect` and `onnxnas check`.

    python tools/coverage.py MODEL.onnx ... [-o docs/coverage.md] [--jobs 2]
    python tools/coverage.py --shared ../shared [--only NAME ...] [-o docs/coverage.md]

`--shared` takes every architecture of its `zoo` and every file of its `data/onnx`. Each model is a process
of its own with a time limit; one that fails is a row with the reason. Exits with 1 when a check did not hold.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import onnx

LIMIT = 600  # seconds for one command


@dataclass
class Row:
    """One model: what inspect and check said, or why they did not."""

    name: str
    inspected: dict[str, Any] = field(default_factory=dict)
    checked: dict[str, Any] = field(default_factory=dict)
    reason: str = ""

    @property
    def ok(self) -> bool:
        return bool(self.checked.get("ok"))

    def cells(self) -> list[str]:
        """The row of the table."""
        seen, told = self.inspected, self.checked
        if not seen:
            return [self.name, "no", *[""] * 7, self.reason]
        kinds = sorted({b["kind"] for b in seen["blocks"]})
        blocks = f"{len(seen['blocks'])}" + (f" ({', '.join(kinds)})" if kinds else "")
        ratios = [s["macs_ratio"] for s in told.get("subnets", []) if s["macs_ratio"] > 0]
        errors = [s["max_rel"] for s in told.get("subnets", [])]
        worst = None if None in errors or not errors else max(errors)
        return [
            self.name,
            "ok" if self.ok else "no",
            blocks,
            str(len(seen["width_groups"])),
            f"{seen['log10_subnetworks']:.1f}",
            f"{1 / min(ratios):.1f}" if ratios else "",
            _power(told.get("identity", {}).get("max_rel")),
            _power(told.get("torch", {}).get("max_rel")),
            _power(worst),
            self.reason or "; ".join(told.get("problems", []))[:160],
        ]


def _power(value: float | None) -> str:
    return "" if value is None else f"{value:.0e}"


def command(*arguments: str) -> tuple[dict[str, Any], str]:
    """(document, reason) of one onnxnas command; the document is empty when there is none."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "onnxnas", *arguments, "--json"],
            capture_output=True, text=True, timeout=LIMIT, env=environment, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {}, f"{arguments[0]}: no answer after {LIMIT} s"
    try:
        return json.loads(done.stdout), ""
    except json.JSONDecodeError:
        lines = done.stderr.strip().splitlines() or [f"exit {done.returncode} without a word"]
        return {}, lines[-1][:200]


def examine(name: str, make: Callable[[Path], Path]) -> Row:
    """Inspect and check one model."""
    row = Row(name)
    with tempfile.TemporaryDirectory() as place:
        path = str(make(Path(place)))
        row.inspected, row.reason = command("inspect", path)
        if row.inspected:
            row.checked, row.reason = command("check", path)
    return row


def zoo_models(shared: Path) -> Iterator[tuple[str, Callable[[Path], Path]]]:
    """(name, a function that writes it into a folder) for every architecture of the zoo."""
    spec = importlib.util.spec_from_file_location("zoo", shared / "zoo" / "zoo.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"{shared}: no zoo/zoo.py")
    zoo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(zoo)

    def made(name: str, place: Path) -> Path:
        path = place / f"{name}.onnx"
        onnx.save(zoo.load(name), str(path))
        return path

    for name in zoo.names():
        yield name, partial(made, name)


def shared_models(shared: Path) -> Iterator[tuple[str, Callable[[Path], Path]]]:
    """The zoo, then the files found in the wild."""
    yield from zoo_models(shared)
    for path in sorted((shared / "data" / "onnx").glob("*.onnx")):
        yield path.name, partial(lambda given, _: given, path)


def table(rows: list[Row]) -> str:
    """The page, in Markdown."""
    heads = ["model", "check", "blocks", "width groups", "log10 sub-networks", "MACs, most / least"]
    heads += ["identity", "torch", "sub-networks", "remarks"]
    lines = [
        "# Coverage",
        "",
        f"{sum(r.ok for r in rows)} of {len(rows)} models pass `onnxnas check`. Made by `tools/coverage.py`.",
        "`identity`, `torch` and `sub-networks` are relative differences: the rewritten whole against the file,",
        "torch against ONNX Runtime, and each of five sub-networks in torch against its own file, the worst.",
        "",
        "| " + " | ".join(heads) + " |",
        "|" + " --- |" * len(heads),
    ]
    lines += ["| " + " | ".join(cell.replace("|", "/") for cell in row.cells()) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--shared", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    todo: list[tuple[str, Callable[[Path], Path]]]
    todo = [(m.name, partial(lambda given, _: given, m)) for m in options.models]
    if options.shared:
        todo += shared_models(options.shared)
    if options.only:
        todo = [item for item in todo if item[0] in options.only]
    with ThreadPoolExecutor(options.jobs) as pool:
        rows = []
        for row in pool.map(lambda item: examine(*item), todo):
            print(" ".join(f"{cell or '-':12s}" for cell in row.cells()), flush=True)
            rows.append(row)
    if options.output:
        options.output.write_text(table(rows), encoding="utf-8")
    print(f"{sum(r.ok for r in rows)} of {len(rows)} pass")
    return 0 if rows and all(r.ok for r in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
