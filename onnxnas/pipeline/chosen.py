"""RUN/chosen.json: which finalists the user wants, when these are not the ones that a search would choose.

    {"schema": 1, "trials": [95, 123]}                       candidates, by their numbers in trials.csv
    {"schema": 1, "subnets": [...], "seconds": 1234.5}       finalists of before, to be fine-tuned further

The latter begin as they are in RUN/starts/NN.onnx; `seconds` is what finishing them has taken so far.
"""

from __future__ import annotations

from collections.abc import Sequence

from onnxnas import search
from onnxnas.errors import ConfigError, RunError
from onnxnas.pipeline import files, finalists, finetuning
from onnxnas.pipeline.line import Line
from onnxnas.pipeline.run_dir import RunDirectory
from onnxnas.pipeline.stages.search import wanted
from onnxnas.types import Subnet

FILE = "chosen.json"


def undecided(run: RunDirectory) -> None:
    """Raise RunError when finalists, and how they are finished, have been decided on already."""
    if run.plan("finalise") is not None:
        raise RunError(
            f"{run.path}: finalists have been decided on already; add --redo to finish others, or the same in another "
            "way, or --further to go on with them"
        )


def name(run: RunDirectory, trials: Sequence[int]) -> None:
    """Finalists are to be these trials, by number."""
    files.write_json(run / FILE, {"schema": 1, "trials": list(dict.fromkeys(trials))})


def go_on(run: RunDirectory) -> None:
    """The finalists of a complete run are to be fine-tuned further, from where they are.

    Raises RunError when there are none, or not as they were before their BatchNormalization was folded.
    """
    marker, plan = run.marker("finalise"), run.plan("finalise")
    if marker is None or plan is None:
        raise RunError(f"{run.path}: no finished finalists to take further; `onnxnas finalise` makes some")
    subnets = [Subnet.from_json(body) for body in plan["subnets"]]
    for index in sorted(set(finetuning.weights_of(subnets))):
        last = run / "finalists" / f"{index:02d}" / finetuning.TRAINABLE
        if not last.is_file():
            raise RunError(
                f"{last} is missing, which further fine-tuning begins with; finish anew with --redo"
            )
        files.write_bytes(run / finetuning.STARTS / f"{index:02d}.onnx", last.read_bytes())
    files.write_json(
        run / FILE, {"schema": 1, "subnets": plan["subnets"], "seconds": float(marker["seconds"])}
    )
    run.forget("finalise", keep=(FILE, finetuning.STARTS))


def seconds_before(run: RunDirectory) -> float:
    """What finishing these finalists took before they were taken further."""
    return float(files.read_json(run / FILE).get("seconds", 0.0)) if (run / FILE).is_file() else 0.0


def read(line: Line) -> list[Subnet]:
    """The finalists: those that the user wants, else the best. Raises ConfigError for trials that are not there."""
    trials = search.read_trials_csv(line.run / "trials.csv", wanted(line))
    if not (line.run / FILE).is_file():
        return [trial.subnet for trial in finalists.chosen(line, trials, wanted(line))]
    body = files.read_json(line.run / FILE)
    if "subnets" in body:
        return [Subnet.from_json(subnet) for subnet in body["subnets"]]
    by_number = {trial.number: trial.subnet for trial in trials if trial.status == "ok"}
    if unknown := [number for number in body["trials"] if number not in by_number]:
        raise ConfigError(
            f"{line.run / 'trials.csv'} has no successful trial {', '.join(map(str, unknown))}; "
            "give others with --redo"
        )
    return [by_number[number] for number in body["trials"]]
