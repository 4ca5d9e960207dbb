"""Commands about a run: optimize, train, search, finalise, resume, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from onnxnas.cli import output
from onnxnas.cli.options import (
    AsJson,
    Debug,
    MaybeSeed,
    Model,
    Run,
    Seed,
    Shapes,
    Verbose,
    limits,
    listed,
    shapes,
)
from onnxnas.errors import ConfigError

Data = Annotated[str | None, typer.Option("--data", help="A .npz, folder, YAML file or module.py:function.")]
RunOut = Annotated[str | None, typer.Option("-o", "--output", help="The run directory.")]
Preset = Annotated[
    str | None, typer.Option("--preset", help="quick, default or thorough.", show_default="default")
]
Budget = Annotated[str | None, typer.Option("--time-budget", help="For example 90s, 30m, 2h.")]
StageBudget = Annotated[
    str | None,
    typer.Option(
        "--time-budget", help="For this stage, for example 2h.", show_default="its share of the run's"
    ),
]
SearchFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="A YAML file with `search`, `objectives`, `limits` or `max_drop`, for this run from now on.",
    ),
]
StageFile = Annotated[
    Path | None,
    typer.Option("--config", help="A YAML file with a section `finalise`, for this run from now on."),
]
Drop = Annotated[
    float | None, typer.Option("--max-drop", help="Points of quality that may go.", show_default="1.0")
]
Objectives = Annotated[
    list[str] | None,
    typer.Option(
        "--objective",
        help="latency, latency-p90, latency-p99, throughput, macs, params, size, memory, module:function; repeatable.",
        show_default="latency, macs",
    ),
]
Limits = Annotated[
    list[str] | None,
    typer.Option("--limit", help="OBJECTIVE=VALUE: the most it may be (or the least); repeatable."),
]
Runtime = Annotated[
    str | None, typer.Option("--runtime", help="onnxruntime or openvino.", show_default="onnxruntime")
]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Of the runtime.", show_default="1")]
Batch = Annotated[
    int | None, typer.Option("--batch", min=1, help="That latency is measured with.", show_default="1")
]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision",
        help="fp32, int8 or both: what numbers the networks have; both are searched.",
        show_default="fp32",
    ),
]
Elastic = Annotated[str | None, typer.Option("--elastic", help="Of depth,width,kernel.", show_default="all")]
Warm = Annotated[
    list[str] | None,
    typer.Option("--warm-start", help="A finished run of the same model to learn from; repeatable."),
]
Device = Annotated[
    str | None, typer.Option("--device", help="Of training: auto, cpu or cuda.", show_default="auto")
]
File = Annotated[Path | None, typer.Option("--config", help="A YAML file; flags win over it.")]
Save = Annotated[Path | None, typer.Option("--save-config", help="Write the resolved configuration there.")]
Join = Annotated[bool, typer.Option("--join", help="Help the process that is searching this run now.")]
Trials = Annotated[
    list[int] | None,
    typer.Option(
        "--trial",
        min=0,
        help="A candidate to finish, by its number in trials.csv; repeatable.",
        show_default="the best ones",
    ),
]
Further = Annotated[
    bool,
    typer.Option("--further", help="Go on fine-tuning the finalists that are finished, from where they are."),
]
Redo = Annotated[bool, typer.Option("--redo", help="Run this stage again even if it is complete.")]


def optimize(
    model: Model,
    data: Data = None,
    output_: RunOut = None,
    preset: Preset = None,
    time_budget: Budget = None,
    max_drop: Drop = None,
    objective: Objectives = None,
    limit: Limits = None,
    runtime: Runtime = None,
    threads: Threads = None,
    batch: Batch = None,
    precision: Precision = None,
    elastic: Elastic = None,
    warm_start: Warm = None,
    device: Device = None,
    shape: Shapes = None,
    config: File = None,
    save_config: Save = None,
    as_json: AsJson = False,
    seed: MaybeSeed = None,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """The whole line: train, search, finalise, bundle, report.

    Example: onnxnas optimize resnet20.onnx --data cifar10.yaml -o runs/r20 --max-drop 1.0
    """
    flags = _flags(locals())
    _begin(flags, config, save_config, None, as_json)


def train(
    model: Model,
    data: Data = None,
    output_: RunOut = None,
    preset: Preset = None,
    time_budget: Budget = None,
    elastic: Elastic = None,
    device: Device = None,
    shape: Shapes = None,
    config: File = None,
    save_config: Save = None,
    as_json: AsJson = False,
    seed: MaybeSeed = None,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """The super-network only; `search` and `finalise` follow on the same run directory.

    Example: onnxnas train resnet20.onnx --data cifar10.yaml -o runs/r20
    """
    flags = _flags(locals())
    _begin(flags, config, save_config, "train", as_json)


def search(
    run: Run,
    objective: Objectives = None,
    limit: Limits = None,
    config: SearchFile = None,
    redo: Redo = False,
    join: Join = False,
    as_json: AsJson = False,
    seed: Seed = 0,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Search sub-networks with the trained super-network of a run; uses the run's seed, and its configuration but for
    what is said here.

    Example: onnxnas search runs/r20 --objective macs --limit macs=20000000 --redo
    """
    from onnxnas.pipeline import config as configuration
    from onnxnas.pipeline import memory, runner

    said = {"objectives": objective or None, "limits": limits(limit) or None}
    changes = {key: value for key, value in said.items() if value is not None}
    if config is not None:
        changes = {**configuration.section(config, "search", ("objectives", "limits", "max_drop")), **changes}
    if not join:
        _continue(run, "search", redo, as_json, changes)
        return
    if changes:
        raise ConfigError(
            "--join helps a search as it is: give no objectives, limits or configuration with it"
        )

    memory.keep_freed()
    if redo:
        raise ConfigError("--redo begins a search and --join helps one: give one of them")
    with output.reporter() as watching:
        body = runner.join(run, watching)
    if as_json:
        output.document(body)
    else:
        output.line(f"{run}: the search has {body['evaluations']} trials, nothing is left to do here")


def finalise(
    run: Run,
    trial: Trials = None,
    redo: Redo = False,
    further: Further = False,
    time_budget: StageBudget = None,
    config: StageFile = None,
    as_json: AsJson = False,
    seed: Seed = 0,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Fine-tune, measure and pack what the search of a run found; uses the run's configuration and seed.

    Example: onnxnas finalise runs/r20 --trial 95 --trial 123 --redo
    """
    from onnxnas.pipeline import config as configuration
    from onnxnas.pipeline import memory, runner

    memory.keep_freed()
    changes = {} if config is None else configuration.section(config, "finalise")["finalise"]
    if time_budget is not None:
        changes["max_seconds"] = time_budget
    with output.reporter() as watching:
        body = runner.finish(run, watching, redo=redo, further=further, trials=trial or (), changes=changes)
    _show(body, run, as_json)


def resume(
    run: Run,
    as_json: AsJson = False,
    seed: Seed = 0,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Continue whatever was interrupted; uses the run's configuration and seed.

    Example: onnxnas resume runs/r20
    """
    _continue(run, None, False, as_json)


def report(
    run: Run,
    as_json: AsJson = False,
    seed: Seed = 0,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Write the report of a run again: one HTML file that needs no network.

    Example: onnxnas report runs/r20
    """
    from onnxnas.handoff import report as page
    from onnxnas.pipeline.run_dir import RunDirectory

    RunDirectory(run).require()
    path = page.write(run)
    if as_json:
        output.document({"schema": 1, "path": str(path)})
    else:
        output.line(f"{path}")


def _flags(given: dict[str, Any]) -> dict[str, Any]:
    """What the user said, under configuration keys; what was not said is absent."""
    objective = given.get("objective")
    said = {
        "model": str(given["model"]),
        "data": given["data"],
        "output": given["output_"],
        "objectives": objective or None,
        "limits": limits(given.get("limit")) or None,
        "precision": listed(given.get("precision")),
        "elastic": listed(given.get("elastic")),
        "shapes": shapes(given.get("shape")) or None,
        "search": {"warm_start": given["warm_start"]} if given.get("warm_start") else None,
    }
    for name in ("preset", "time_budget", "max_drop", "runtime", "threads", "batch", "device", "seed"):
        said[name] = given.get(name)
    return {key: value for key, value in said.items() if value is not None}


def _begin(
    flags: dict[str, Any],
    file: Path | None,
    save: Path | None,
    last: str | None,
    as_json: bool,
) -> None:
    from onnxnas.pipeline import config as configuration
    from onnxnas.pipeline import memory, runner

    memory.keep_freed()
    resolved = configuration.resolve(flags, file)
    if save is not None:
        configuration.save(resolved, save)
    with output.reporter() as watching:
        body = runner.begin(resolved, watching, last=last)
    _show(body, Path(resolved.output), as_json)


def _continue(
    run: Path, stage: str | None, redo: bool, as_json: bool, changes: dict[str, Any] | None = None
) -> None:
    from onnxnas.pipeline import memory, runner

    memory.keep_freed()
    with output.reporter() as watching:
        body = runner.proceed(run, watching, stage=stage, redo=redo, changes=changes)
    _show(body, run, as_json)


def _show(body: dict[str, Any], run: Path, as_json: bool) -> None:
    if as_json:
        output.document(body)
    elif "pareto" in body:
        output.results(body, str(run))
    else:
        output.line(f"{run}: stage '{body['stage']}' is complete; continue with `onnxnas resume {run}`")
