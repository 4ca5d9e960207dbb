"""Stage 4: fine-tune the finalists, measure them for long, judge them on test samples once, pack them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import rewriters
from onnxnas import graph, measure
from onnxnas.errors import CheckFailed, EnvironmentProblem
from onnxnas.handoff import bundle, report
from onnxnas.pipeline import build, chosen, files, finalists, finetuning, results, tuning_plan
from onnxnas.pipeline.crew import Crew, fitting
from onnxnas.pipeline.line import Line
from onnxnas.pipeline.measuring import measurer
from onnxnas.pipeline.objectives import own, tails
from onnxnas.pipeline.results import Member, interval
from onnxnas.pipeline.rounding import Rounder
from onnxnas.pipeline.stages.search import wanted
from onnxnas.types import Subnet

SEEN_MARGIN = 0.03  # of the quality: more between validation and test samples is no chance


@dataclasses.dataclass(frozen=True)
class _Final:
    """Finalist `index`, which has the weights of finalist `weights`, and their quality if they were fine-tuned."""

    index: int
    subnet: Subnet
    weights: int
    val_quality: float | None


def run(line: Line) -> None:
    """Write finalists/, pareto.csv, pareto/rank_NN/, result.json and report.html."""
    began = time.perf_counter()
    line.run.verify("search")
    finals = _tuned(line)
    split = "test" if line.data.test is not None else "val"
    notes = [*line.model_notes, *line.data.notes]
    if split == "val":
        notes.append("No test split was given: quality is on validation samples, which the search used.")
    if finalists.exact(line.data, line.metric):
        notes.append(
            f"Quality is {line.metric.name} against the original's outputs; that of the original itself stands for an "
            "exact answer, and a difference from it means nothing."
        )
    elif line.config.max_drop is None and line.data.train.y is None:
        notes.append(
            f"Without labels quality is {line.metric.name} with the original, of which {finalists.drop(line):g} "
            f"{line.metric.unit} may go, since max_drop was not given; how many answers are right is not known."
        )
    if line.config.finalise.samples == "all":
        notes.append(
            "Fine-tuning was on the validation samples too: what is told of them means nothing any more."
        )
    with measurer(line) as measuring:
        judges = {name: _judge(line, measuring, name) for name in {split, "val"}}
        base = _baseline(line, measuring, judges[split])
        notes += _seen_before(line, base["quality"])
        if any(final.subnet.precision for final in finals):
            notes += Rounder(measuring, line.data, line.config.seed).notes
        members = [
            member
            for final in finals
            if (member := _member(line, measuring, final, len(finals), judges, split)) is not None
        ]
        if not members:
            raise CheckFailed(f"{line.run.path}: no finalist could be measured; log.txt says why")
        least = finalists.least_quality(line, base["quality"])
        front, best = results.ranked(members, wanted(line), least)
        entries = [member.to_json(f"pareto/rank_{rank:02d}") for rank, member in enumerate(front, 1)]
        if best is None:
            notes.append(
                f"No found model of the least quality asked for, {least:.4g} {line.metric.unit}"
                f"{', and within the limits' if line.config.limits else ''}, is measurably faster (interval of the "
                "speed-up above 1): keep the baseline."
            )
        for member, entry in zip(front, entries, strict=True):
            _pack(line, measuring, member, entry, base, notes)
    seconds = {name: (line.run.marker(name) or {}).get("seconds") for name in ("train", "search")}
    took = round(chosen.seconds_before(line.run) + time.perf_counter() - began, 3)
    body = {
        "schema": 1,
        "command": line.command,
        "metric": {"name": line.metric.name, "unit": line.metric.unit},
        "quality_split": split,
        "baseline": base,
        "best": entries[0] if best is not None else None,
        "pareto": entries,
        "dominated": [member.to_json(None) for member in members if member not in front],
        "supernet_max_quality": finalists.judge(line, split).quality(Subnet()),
        "evaluations": (line.run.marker("search") or {}).get("evaluations"),
        "seconds": {**seconds, "finalise": took},
        "notes": notes,
    }
    files.write_bytes(line.run / "pareto.csv", results.pareto_csv(entries).encode())
    files.write_json(line.run / "result.json", body)
    report.write(line.run.path)
    line.run.finish("finalise", took, ("pareto.csv", "result.json"))


def _tuned(line: Line) -> list[_Final]:
    """The finalists, each structure fine-tuned once."""
    plan = line.run.plan("finalise")
    subnets = chosen.read(line) if plan is None else [Subnet.from_json(body) for body in plan["subnets"]]
    weights = finetuning.weights_of(subnets)
    own = sorted(set(weights))
    with Crew(line, fitting(line, len(own))) as crew:
        if plan is None:
            plan = line.run.decide("finalise", tuning_plan.planned(line, subnets, own, crew))
        networks = f" of {len(own)} structures" if len(own) < len(subnets) else ""
        epochs = _in_words([plan["epochs"][index - 1] for index in own])
        at_once = f", {crew.size} at a time" if crew.size > 1 else ""
        at_once += f", each by {plan['processes']} processes" if plan.get("processes", 1) > 1 else ""
        line.say(f"finalise: {len(subnets)} finalists{networks}, {epochs} of fine-tuning{at_once}")
        finetuning.lessons(line).forget_others()
        _teach(line, plan["lessons"], crew)
        together = crew.together(plan.get("processes", 1))
        requests = [
            {
                "do": "tune",
                "subnet": plan["subnets"][index - 1],
                "index": index,
                "epochs": plan["epochs"][index - 1],
                "limit": plan["limits"][index - 1],
                **together,
            }
            for index in own
        ]
        told = dict(zip(own, crew.map(requests), strict=True))
    return [
        _Final(index, subnet, which, told[which]["val_quality"])
        for index, (subnet, which) in enumerate(zip(subnets, weights, strict=True), 1)
    ]


def _teach(line: Line, epochs: int, crew: Crew) -> None:
    """Have what the teacher says of so many epochs written, by all cores however few finalists the crew has."""
    requests = [{"do": "teach", "epoch": epoch, "epochs": epochs} for epoch in range(epochs)]
    able = fitting(line, epochs) if epochs else 0
    if able <= crew.size:
        crew.map(requests)
        return
    with Crew(line, able) as larger:
        larger.map(requests)


def _in_words(epochs: Sequence[float]) -> str:
    if len(set(epochs)) == 1:
        return f"{epochs[0]:g} epochs each"
    return f"{', '.join(f'{one:g}' for one in epochs)} epochs"


def _seen_before(line: Line, quality: float) -> list[str]:
    """Say so when the validation samples look like ones that the original was trained on."""
    on_val = float((line.run.plan("search") or {}).get("baseline_quality", quality))
    if line.data.test is None or on_val - quality <= SEEN_MARGIN * abs(quality):
        return []
    return [
        f"The original reaches {on_val:.2f} {line.metric.unit} on the validation samples and {quality:.2f} on the "
        "test samples: it was probably trained on the former, so that validation figures rank candidates but do "
        "not tell their loss; give `val` samples that it has not seen to choose finalists better."
    ]


def _protocol(line: Line) -> measure.Protocol:
    return dataclasses.replace(measure.LONG, seconds=line.config.finalise.measure_seconds)


def _baseline(line: Line, measuring: measure.Measurer, judge: build.InRuntime) -> dict[str, Any]:
    """The user's model against itself: its figures, and that there is no difference where there can be none."""
    found = measuring.measure(line.baseline, protocol=_protocol(line))
    if found.status != "ok" or found.p50 is None:
        raise EnvironmentProblem(f"the baseline cannot be measured ({found.status}): {found.error}")
    cost = line.space.cost(Subnet())
    quality = judge.quality(line.baseline)
    return {
        "quality": quality,
        "latency_ms": interval(found.p50, "p50"),
        "macs": cost.macs,
        "params": cost.params,
        "bytes": len(line.baseline),
    }


def _judge(line: Line, measuring: measure.Measurer, split: str) -> build.InRuntime:
    return build.InRuntime(measuring, line.baseline, line.data, split, line.metric)


def _content(line: Line, measuring: measure.Measurer, final: _Final) -> bytes:
    """The file of a finalist: as it was fine-tuned, and rounded then if it is to be."""
    content = (line.run / "finalists" / f"{final.weights:02d}" / "model.onnx").read_bytes()
    if not final.subnet.precision:
        return content
    floats = rewriters.Parts.of(graph.parse(content))
    return Rounder(measuring, line.data, line.config.seed).rounded(floats, final.subnet.precision).to_bytes()


def _member(
    line: Line,
    measuring: measure.Measurer,
    final: _Final,
    of: int,
    judges: Mapping[str, build.InRuntime],
    split: str,
) -> Member | None:
    index, subnet, val = final.index, final.subnet, final.val_quality
    content = _content(line, measuring, final)
    found = measuring.measure(content, protocol=_protocol(line), served=line.serving.of(subnet))
    line.step("measure", index, of)
    if found.status != "ok" or found.p50 is None or found.speedup is None or found.throughput is None:
        line.say(f"finalist {index}: {found.status}: {found.error}")
        return None
    quality = judges[split].quality(content)
    if val is None or subnet.precision:
        val = judges["val"].quality(content)
    cost = line.space.cost(subnet.structure)
    names = {objective.name for objective in wanted(line)}
    others = {
        **{name: value for name, value in tails(found, found.p50.value).items() if name in names},
        **own(line.config.objectives, lambda: graph.parse(content)),
    }
    return Member(
        index,
        subnet,
        content,
        quality,
        val,
        cost.macs,
        cost.params,
        found.p50,
        found.speedup,
        found.throughput,
        others,
        line.serving.samples(subnet),
    )


def _pack(
    line: Line,
    measuring: measure.Measurer,
    member: Member,
    entry: dict[str, Any],
    base: dict[str, Any],
    notes: list[str],
) -> None:
    config = line.config
    inputs = build.feeds(line.original, line.data, min(4, line.data.val.n))
    answers = build.example(measuring, member.model, inputs, line.graph.outputs)
    target = config.target.served(member.subnet.serving)
    bundle.write(
        line.run / entry["bundle"],
        member.model,
        runtime_settings={
            "runtime": config.runtime,
            "version": measuring.version,
            "threads": target.threads,
            "batch": target.batch,
            "settings": measure.resolve_settings(target),
            "environment": {},
        },
        metrics={**entry, "metric": line.metric.name, "unit": line.metric.unit, "baseline": base},
        card=bundle.CardInfo(
            title=f"{config.model}, sub-network {entry['bundle'].rpartition('/')[2]}",
            source=config.model,
            source_sha256=line.graph.digest,
            subnet=member.subnet,
            space=line.space.to_json(),
            environment=files.read_json(line.run / "environment.json"),
            metric=line.metric.name,
            unit=line.metric.unit,
            command=line.command,
            notes=tuple(notes),
        ),
        samples=bundle.Samples(inputs, answers),
    )
