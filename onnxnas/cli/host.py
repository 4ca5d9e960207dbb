"""Commands about this machine: bench, verify, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from onnxnas.cli import output
from onnxnas.cli.options import AsJson, Debug, Model, Seed, Shapes, Verbose, shapes
from onnxnas.errors import CheckFailed, ConfigError, EnvironmentProblem


def bench(
    model: Model,
    against: Annotated[
        Path | None, typer.Option("--against", help="Another ONNX file, measured in turns.")
    ] = None,
    scenario: Annotated[
        str, typer.Option("--scenario", help="single-stream, offline or server.")
    ] = "single-stream",
    runtime: Annotated[str, typer.Option("--runtime", help="onnxruntime or openvino.")] = "onnxruntime",
    threads: Annotated[int, typer.Option("--threads", min=1, help="Of the runtime.")] = 1,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Samples per inference.")] = 1,
    bound: Annotated[
        float | None, typer.Option("--bound-ms", help="Of server: 99 % are answered within.")
    ] = None,
    shape: Shapes = None,
    as_json: AsJson = False,
    seed: Seed = 0,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Honest latency and throughput: medians with intervals, in turns with another model if one is given.

    Example: onnxnas bench small.onnx --against resnet20.onnx --threads 2
    """
    from onnxnas.pipeline.bench import SCENARIOS
    from onnxnas.pipeline.bench import bench as run

    chosen = next((known for known in SCENARIOS if known == scenario), None)
    if chosen is None:
        raise ConfigError(f"--scenario {scenario}: expected {', '.join(SCENARIOS)}")
    body = run(
        model,
        against=against,
        scenario=chosen,
        runtime=runtime,
        threads=threads,
        batch=batch,
        bound_ms=bound,
        shapes=shapes(shape),
        seed=seed,
    )
    if as_json:
        output.document(body)
    else:
        _flat(str(model), body)


def verify(
    bundle: Annotated[Path, typer.Argument(help="A bundle's directory.", show_default=False)],
    as_json: AsJson = False,
    seed: Seed = 0,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Check a bundle's hashes and numbers on this host, and measure its latency here.

    Example: onnxnas verify runs/r20/pareto/rank_01
    """
    from onnxnas.handoff.verify import verify as run

    report = run(bundle)
    if as_json:
        output.document(report.to_json())
    else:
        _flat(str(bundle), report.to_json())
    if not report.ok:
        wrong = [*report.problems, *(f"{n} is missing" for n in report.missing)]
        wrong += [f"{n} was changed" for n in report.changed] + [
            f"{n} does not belong here" for n in report.extra
        ]
        raise CheckFailed(f"{bundle}: {'; '.join(wrong)}")


def doctor(
    as_json: AsJson = False,
    seed: Seed = 0,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Versions, CPU features, what is missing on this machine, and what to do about it.

    Example: onnxnas doctor
    """
    from onnxnas import measure

    body = measure.doctor()
    if as_json:
        output.document(body)
    else:
        for finding in body["findings"]:
            advice = f" -> {finding['advice']}" if finding["advice"] else ""
            output.line(f"{finding['status']:4}  {finding['check']}: {finding['detail']}{advice}")
    if not body["ok"]:
        failed = [finding for finding in body["findings"] if finding["status"] == "fail"]
        raise EnvironmentProblem("; ".join(f"{f['check']}: {f['detail']}: {f['advice']}" for f in failed))


def _flat(title: str, body: dict[str, Any]) -> None:
    output.line(title)
    for name, value in _items(body):
        output.line(f"  {name}: {value}")


def _items(body: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in body.items():
        if isinstance(value, dict):
            if {"value", "lo", "hi"} <= value.keys() and value["value"] is not None:
                rows.append((prefix + key, f"{value['value']:.4g} ({value['lo']:.4g} to {value['hi']:.4g})"))
            else:
                rows += _items(value, f"{prefix}{key}.")
        elif value not in (None, [], "") and key != "schema":
            rows.append((prefix + key, ", ".join(map(str, value)) if isinstance(value, list) else str(value)))
    return rows
