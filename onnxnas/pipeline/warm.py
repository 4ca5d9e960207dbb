"""What earlier runs of the same model give to the search of this one.

    search.warm_start   their trials, as a prior of the search          RUN/prior.json
    search.reduce_from  what their good candidates chose, as the space  RUN/reduced.json

Both are copied into this run before the search begins, so that it can be resumed when the others are gone.
"""

from __future__ import annotations

from onnxnas import search
from onnxnas.errors import ConfigError, RunError
from onnxnas.pipeline import config as configuration
from onnxnas.pipeline import files
from onnxnas.pipeline.config import Config
from onnxnas.pipeline.line import Line
from onnxnas.pipeline.objectives import objectives
from onnxnas.pipeline.run_dir import RunDirectory
from onnxnas.types import Objective, Subnet, Trial

_COSTS = (Objective("macs", "MACs", maximise=False), Objective("params", "weights", maximise=False))


def examine(config: Config, digest: str) -> None:
    """Raise RunError unless every run that is built on is there, searched and of the model with this digest."""
    for path in dict.fromkeys((*config.search.warm_start, *config.search.reduce_from)):
        run = RunDirectory(path)
        run.require()
        theirs = str(files.read_json(run / "stages" / "run.json")["model_sha256"])
        if theirs != digest:
            raise RunError(
                f"{path} is a run of another model (its SHA-256 {theirs[:12]}..., this one has {digest[:12]}...); "
                "only runs of the same file can be built on"
            )
        if run.marker("search") is None:
            raise RunError(f"{path} has not been searched yet; `onnxnas resume {path}` does that")


def prior(line: Line) -> search.Prior | None:
    """What `search.warm_start` names, or None. Raises RunError."""
    place = line.run / "prior.json"
    if not line.config.search.warm_start:
        return None
    if not place.is_file():
        examine(line.config, line.identity["model_sha256"])
        told = [_trials(path) for path in line.config.search.warm_start]
        shared = [name for name in told[0][1] if all(name in names for _, names in told)]
        found = search.Prior.of([trial for trials, _ in told for trial in trials], shared)
        files.write_json(place, found.to_json())
        line.say(
            f"search: warm start from {len(found)} candidates of {', '.join(line.config.search.warm_start)}"
        )
    return search.Prior.from_json(files.read_json(place))


def space(line: Line) -> search.Space:
    """The space of this run, or what `search.reduce_from` leaves of it. Raises RunError, ConfigError."""
    settings = line.config.search
    if not settings.reduce_from:
        return line.space
    place = line.run / "reduced.json"
    if not place.is_file():
        examine(line.config, line.identity["model_sha256"])
        good = [subnet for path in settings.reduce_from for subnet in _good(path)]
        choices = search.populated(line.space, good, settings.reduce_threshold)
        files.write_json(place, {"from": list(settings.reduce_from), "choices": choices})
    try:
        reduced = search.ReducedSpace(line.space, files.read_json(place)["choices"])
    except ConfigError as error:
        raise RunError(f"{place}: {error}") from error
    line.say(
        f"search: space reduced from 10^{line.space.size_log10:.1f} to 10^{reduced.size_log10:.1f} sub-networks"
    )
    return reduced


def _wanted(path: str) -> tuple[Objective, ...]:
    """What the run at `path` searched for."""
    return objectives(configuration.load(RunDirectory(path) / "config.yaml").objectives, "")


def _trials(path: str) -> tuple[list[Trial], list[str]]:
    """The trials of a run and the names of their figures."""
    wanted = _wanted(path)
    known = (*wanted, *(cost for cost in _COSTS if cost not in wanted))
    return search.read_trials_csv(RunDirectory(path) / "trials.csv", known), [o.name for o in known]


def _good(path: str) -> list[Subnet]:
    """The better half of the candidates of a run, by its own objectives."""
    wanted = _wanted(path)
    return search.better_half(search.read_trials_csv(RunDirectory(path) / "trials.csv", wanted), wanted)
