"""Begin a run, or continue one: the stages in order, each skipped when it is complete.

Nothing is written before the model, the data and the configuration have been judged good. A KeyboardInterrupt
(SIGINT, SIGTERM) becomes `Interrupted`, whose message has the command that continues.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxnas.errors import ConfigError, Interrupted, RunError
from onnxnas.pipeline import chosen, files, warm
from onnxnas.pipeline import config as configuration
from onnxnas.pipeline.config import Config
from onnxnas.pipeline.events import Reporter, Silent
from onnxnas.pipeline.line import Line
from onnxnas.pipeline.objectives import objectives
from onnxnas.pipeline.run_dir import STAGES, RunDirectory
from onnxnas.pipeline.stages import finalise, prepare, search, train
from onnxnas.pipeline.team import attend, launched

if TYPE_CHECKING:
    from onnx import ModelProto

_WORK: dict[str, Callable[[Line], None]] = {
    "prepare": prepare.run,
    "train": train.run,
    "search": search.run,
    "finalise": finalise.run,
}


def begin(
    config: Config,
    reporter: Reporter | None = None,
    *,
    last: str | None = None,
    model: ModelProto | None = None,
) -> dict[str, Any]:
    """Run the stages up to `last` (default: all) and return result.json's body, or the last stage's marker.

    A run directory that is already there continues if it is of this model, data and configuration.

    Raises:
        ModelError, DataError, ConfigError: what was given cannot be used; nothing was written.
        RunError: the directory is of another model, data set or configuration; the message has the differences.
        EnvironmentProblem: another process owns the directory, or the disk refuses.
        Interrupted: stopped by a signal.
    """
    rank, size = launched()
    if rank > 0:
        return attend(config.device, rank, size)
    watching = reporter or Silent()
    run = RunDirectory(config.output)
    run.refuse_foreign()
    source = prepare.examine(config, model)
    if not run.exists:
        objectives(config.objectives, "")
        warm.examine(config, source.graph.digest)
    if run.exists:
        _same(run, config, source)
    with _interruptible(run), run.locked():
        if not run.exists:
            prepare.start(run, config, source)
        return _work(Line(run, config, watching, original=source.graph, data=source.data), last)


def proceed(
    path: str | Path,
    reporter: Reporter | None = None,
    *,
    stage: str | None = None,
    redo: bool = False,
    changes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Continue the run at `path`: all stages, or those up to `stage`. `redo` runs `stage` again from its inputs.

    `changes` are settings, by section, that the run has from now on: those that say what is searched and how, not
    those that its super-network was trained by.

    Raises as `begin` does; RunError for changes of a search that has begun, unless it is to be done again.
    """
    run, others = _found(path)
    if others is not None:
        return others
    config = _changed(run, changes, "search") if changes else None
    if config is not None:
        objectives(config.objectives, "")
    with _interruptible(run), run.locked():
        if redo and stage is not None:
            run.forget(stage)
        if config is not None:
            if run.plan("search") is not None or run.marker("search") is not None:
                raise RunError(f"{run.path}: the search has begun; add --redo to search again in another way")
            configuration.save(config, run / "config.yaml")
        return _work(Line.at(run.path, reporter), stage)


def finish(
    path: str | Path,
    reporter: Reporter | None = None,
    *,
    redo: bool = False,
    further: bool = False,
    trials: Sequence[int] = (),
    changes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Finish what the search of the run at `path` found: fine-tune, measure, pack.

    `redo`: again, from the super-network; `further`: what is finished, from where it is. `trials` are the numbers of
    those to make finalists of, instead of those that would be chosen. `changes` are settings of `finalise` that the
    run has from now on.

    Raises as `begin` does; ConfigError when asked for what contradicts itself; RunError when this has been decided on
    already, or nothing has been finished to be taken further.
    """
    if further and (redo or trials):
        raise ConfigError(
            "to go on with the finalists that are there is neither to redo nor to choose others"
        )
    run, others = _found(path)
    if others is not None:
        return others
    config = _changed(run, {"finalise": dict(changes or {})}, "finalise")
    line = Line(run, config, reporter or Silent())
    if config.finalise.samples == "all":
        line.data.spare_validation()  # before anything is forgotten
    with _interruptible(run), run.locked():
        if redo:
            run.forget("finalise")
        elif further:
            chosen.go_on(run)
        elif trials or changes:
            chosen.undecided(run)
        if changes:
            configuration.save(config, run / "config.yaml")
        if trials:
            chosen.name(run, trials)
        return _work(line, "finalise")


def join(path: str | Path, reporter: Reporter | None = None) -> dict[str, Any]:
    """Help another process that is searching the run at `path`, without owning its directory.

    Raises RunError and EnvironmentProblem as `stages.search.join` does, Interrupted when stopped by a signal.
    """
    run = RunDirectory(path)
    run.require()
    with _interruptible(run):
        return {"schema": 1, "run": str(run.path), **search.join(Line.at(run.path, reporter))}


def _changed(run: RunDirectory, changes: Mapping[str, Any], stage: str) -> Config:
    """The run's configuration with changes, by section, for a stage. Raises ConfigError; nothing is written."""
    body = configuration.load(run / "config.yaml").model_dump(mode="json")
    return configuration.validate(configuration.merge(body, changes), f"{stage} of {run.path}")


def _found(path: str | Path) -> tuple[RunDirectory, dict[str, Any] | None]:
    """The run at `path`; what a launched process other than the first has done for it, in such a process."""
    run = RunDirectory(path)
    run.require()
    rank, size = launched()
    if rank == 0:
        return run, None
    return run, attend(configuration.load(run / "config.yaml").device, rank, size)


def _work(line: Line, last: str | None) -> dict[str, Any]:
    run = line.run
    if last is not None and last not in STAGES:
        raise ConfigError(f"no stage '{last}'; there are {', '.join(STAGES)}")
    prepare.compare_environment(line)
    wanted = STAGES if last is None else STAGES[: STAGES.index(last) + 1]
    for stage in wanted:
        if run.marker(stage) is None:
            _WORK[stage](line)
    if wanted[-1] == "finalise":
        run.verify("finalise")
        return dict(files.read_json(run / "result.json"))
    return {"schema": 1, "run": str(run.path), **(run.marker(wanted[-1]) or {})}


def _same(run: RunDirectory, config: Config, source: prepare.Source) -> None:
    begun = files.read_json(run / "stages" / "run.json")
    if begun["model_sha256"] != source.graph.digest:
        raise RunError(
            f"{run.path} is a run of another model (its SHA-256 {begun['model_sha256'][:12]}..., "
            f"{config.model} has {source.graph.digest[:12]}...); give another -o"
        )
    changed = configuration.differences(configuration.load(run / "config.yaml"), config)
    if changed:
        raise RunError(
            f"{run.path} was begun with another configuration ({'; '.join(changed)}); "
            f"give another -o, or continue as it was with `onnxnas resume {run.path}`"
        )
    if begun["data_sha256"] != source.data.digest:
        raise RunError(
            f"{run.path} is a run with other data (its digest {begun['data_sha256'][:12]}..., "
            f"{config.data} has {source.data.digest[:12]}...); give another -o"
        )


@contextmanager
def _interruptible(run: RunDirectory) -> Iterator[None]:
    """Turns an interruption into `Interrupted` with the command that continues."""
    try:
        yield
    except (KeyboardInterrupt, Interrupted) as error:
        where = shlex.quote(str(run.path))
        raise Interrupted(f"interrupted; continue with: onnxnas resume {where}") from error
