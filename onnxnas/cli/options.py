"""Options that several commands share, each written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxnas.errors import ConfigError

Model = Annotated[Path, typer.Argument(help="An ONNX file.", show_default=False)]
Run = Annotated[Path, typer.Argument(help="A run directory.", show_default=False)]
AsJson = Annotated[
    bool, typer.Option("--json", help="One JSON document on stdout, everything else on stderr.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Fixes every random choice.")]
MaybeSeed = Annotated[
    int | None, typer.Option("--seed", min=0, help="Fixes every random choice.", show_default="0")
]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Say more.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Shapes = Annotated[
    list[str] | None,
    typer.Option("--shape", help="NAME=1,3,48,192 binds the unknown dimensions of an input; repeatable."),
]
Output = Annotated[Path, typer.Option("-o", "--output", help="Where to write.", show_default=False)]


def shapes(texts: list[str] | None) -> dict[str, tuple[int, ...]]:
    """`NAME=1,3,48,192` texts as a mapping. Raises ConfigError."""
    bound: dict[str, tuple[int, ...]] = {}
    for text in texts or ():
        name, equals, numbers = text.rpartition("=")
        parts = [part.strip() for part in numbers.split(",")]
        if not equals or not name or not all(part.isdecimal() and int(part) > 0 for part in parts):
            raise ConfigError(f"--shape {text}: expected NAME=1,3,48,192 with positive whole numbers")
        bound[name] = tuple(int(part) for part in parts)
    return bound


def listed(text: str | None) -> list[str] | None:
    """'a,b' as ['a', 'b']; None stays None."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def limits(texts: list[str] | None) -> dict[str, float]:
    """`OBJECTIVE=VALUE` texts as a mapping. Raises ConfigError."""
    found: dict[str, float] = {}
    for text in texts or ():
        name, _, value = text.rpartition("=")
        try:
            found[name] = float(value)
        except ValueError:
            name = ""
        if not name:
            raise ConfigError(f"--limit {text}: expected OBJECTIVE=VALUE, for example latency=5")
    return found
