"""How many measurements a search needs: algorithms side by side on one trained super-network.

    python tools/bench_search.py fronts RUN     hypervolume after so many measured candidates, by algorithm
    python tools/bench_search.py predictors RUN quality of the predictors on sub-networks they have not seen
    python tools/bench_search.py warm RUN       a warm start from 1 thread to another target; are the fronts the same?
    python tools/bench_search.py popdb RUN      the same search in the space that earlier ones leave
    python tools/bench_search.py overhead RUN   where the time of a trial goes

RUN is a finished run; its data must still be where it was. Every sub-network is measured once for each target and
kept in RUN/bench_search.jsonl, so that the comparison is affordable and can be interrupted: what one algorithm had
measured, the others look up. What the searches of `fronts` proposed is kept in RUN/bench_search_runs.jsonl, since some
think longer than their candidates take. Tables go to standard output as Markdown, curves to --figure.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from onnxnas import measure, search
from onnxnas.pipeline.config import SearchConfig
from onnxnas.pipeline.line import Line
from onnxnas.search.features import Features
from onnxnas.search.operators import spread_sample
from onnxnas.search.predictors import PREDICTORS, fitted, score
from onnxnas.types import Objective, Subnet, Trial
from tools.search_table import Table

Rows = NDArray[np.float64]
OBJECTIVES = [Objective("quality", "%", maximise=True), Objective("latency_ms", "ms", maximise=False)]
MARKS = (50, 100, 250, 1000)
LENGTHS: Mapping[str, int] = {
    "nsga2": 1000, "concurrent": 250, "full": 250, "gp": 250, "tpe": 250, "optuna-nsga2": 250, "random": 250
}  # fmt: skip


def searched(
    table: Table,
    name: str,
    length: int,
    seed: int,
    *,
    prior: search.Prior | None = None,
    space: search.Space | None = None,
    population: int = 24,
    hinted: bool = True,
    glances: bool = True,
) -> list[Trial]:
    """The first `length` candidates of a search; those on predictors may know what layers take, and glance."""
    known = table.hints(glances=glances) if hinted and name in search.PREDICTING else None
    problem = search.Problem(space or table.line.space, OBJECTIVES, prior, known)
    settings = search.SearchSettings(algorithm=name, population=population)
    algorithm = search.make_algorithm(problem, settings, np.random.default_rng(seed))
    trials: list[Trial] = []
    while len(trials) < length:
        with table.timed("think"):  # glances included
            batch = algorithm.ask(min(population, length - len(trials)))
        if not batch:
            break
        new = [table.evaluate(problem.subnet(g)) for g in batch]
        rows = [problem.minimised(t.values if t.status == "ok" else None) for t in new]
        with table.timed("think"):
            algorithm.tell(batch, np.array(rows))
        trials += new
    print(f"{name} seed {seed}: {len(trials)} candidates; so far {table.spent()}", file=sys.stderr)
    return trials


def repeated(table: Table, name: str, length: int, seed: int, *, hinted: bool, glances: bool) -> list[Trial]:
    """`searched`, by what was proposed the last time, if that was as much at least."""
    path = table.line.run / "bench_search_runs.jsonl"
    which = {
        "figures": [table.quality, table.latency],
        "objectives": len(OBJECTIVES),
        "algorithm": name,
        "seed": seed,
        "hints": hinted,
        "glances": glances,
    }
    for text in path.read_text().splitlines() if path.is_file() else ():
        body = json.loads(text)
        if body["which"] == which and len(body["subnets"]) >= length:
            return [table.evaluate(Subnet.from_json(subnet)) for subnet in body["subnets"][:length]]
    trials = searched(table, name, length, seed, hinted=hinted, glances=glances)
    with path.open("a") as stream:
        stream.write(json.dumps({"which": which, "subnets": [t.subnet.to_json() for t in trials]}) + "\n")
    return trials


def frame(trials: Sequence[Trial]) -> search.Frame:
    """The scale of all hypervolumes: the box around everything that was measured."""
    found = search.Frame.of(trials, OBJECTIVES)
    if found is None:
        raise SystemExit("nothing could be measured")
    return found


def curve(trials: Sequence[Trial], scale: search.Frame) -> Rows:
    """The hypervolume after each candidate (n,)."""
    volumes: list[float] = []
    held = np.empty((0, len(OBJECTIVES)))
    for trial in trials:
        if trial.status == "ok":
            held = np.vstack([held, search.minimised([trial], OBJECTIVES)])
            held = held[search.non_dominated(held)]
        volumes.append(search.hypervolume(held, scale) if len(held) else 0.0)
    return np.array(volumes)


def fronts(table: Table, options: argparse.Namespace) -> None:
    """Algorithms against each other, the mean over seeds."""
    found = {
        name: [
            repeated(
                *(table, name, min(n, options.trials if name == "nsga2" else options.others), seed),
                hinted=not options.no_hints,
                glances=not options.no_glances,
            )
            for seed in options.seeds
        ]
        for name, n in LENGTHS.items()
        if name in options.algorithms
    }
    scale = frame([t for runs in found.values() for trials in runs for t in trials])
    curves = {
        name: np.array([curve(trials, scale) for trials in _even(runs)]) for name, runs in found.items()
    }
    marks = [m for m in MARKS if m <= options.trials]
    print(
        f"| algorithm | {' | '.join(f'after {m}' for m in marks)} | as good as nsga2 after {options.trials} at |"
    )
    print("| --- |" + " --- |" * (len(marks) + 1))
    goal = curves["nsga2"][:, -1].mean() if "nsga2" in curves else np.inf
    for name, rows in curves.items():
        cells = [
            f"{rows[:, m - 1].mean():.4f} ± {rows[:, m - 1].std(ddof=min(1, len(rows) - 1)):.4f}"
            if m <= rows.shape[1]
            else ""
            for m in marks
        ]
        reached = np.flatnonzero(rows.mean(axis=0) >= goal)
        print(f"| {name} | {' | '.join(cells)} | {reached[0] + 1 if len(reached) else 'not'} |")
    _draw(curves, options.figure)
    if options.again:
        _again(table, found, scale, options)


def _again(
    table: Table, found: Mapping[str, list[list[Trial]]], scale: search.Frame, options: argparse.Namespace
) -> None:
    """The fronts by a second measurement of their members: the best of many are in part those that were lucky."""
    images = (options.val_limit, options.recalibration_images)
    print("\n| algorithm | measured | its front, as measured | the same, measured again |")
    print("| --- | --- | --- | --- |")
    with Table(table.line, table.line.config.target, images, again=True) as other:
        for name, runs in found.items():
            before, after = [], []
            for trials in runs:
                front = search.pareto(trials, OBJECTIVES)
                before.append(curve(front, scale)[-1])
                after.append(curve([other.evaluate(t.subnet) for t in front], scale)[-1])
            cells = (f"{np.mean(v):.4f} ± {np.std(v, ddof=min(1, len(v) - 1)):.4f}" for v in (before, after))
            print(f"| {name} | {min(map(len, runs))} | {' | '.join(cells)} |")


def predictors(table: Table, options: argparse.Namespace) -> None:
    """Fitted to n sub-networks and compared with `held` others, both drawn at random."""
    trials = [t for t in _random(table, options.samples + options.held) if t.status == "ok"]
    hinted = search.Problem(table.line.space, OBJECTIVES, hints=table.hints())
    knowing = Features(hinted)
    genotypes = [hinted.encode(t.subnet) for t in trials]
    knowing.look(genotypes)
    known = knowing.of(genotypes)
    features = known[:, : -len(knowing.hints)]
    fresh = slice(options.samples, None)
    print(
        "| figure | predictor | samples | MAPE % | Spearman | Kendall |\n| --- | --- | --- | --- | --- | --- |"
    )
    for place, name, told in ((1, "latency_ms", "layers timed"), (0, "quality", "glanced at")):
        values = np.array([t.values[name] for t in trials])
        for n in (m for m in (12, 25, 50, 100, 200, 400) if m <= options.samples):
            found: dict[str, Rows] = {}
            for kind in (*PREDICTORS, "auto"):
                chosen, model = fitted(kind, features[:n], values[:n])
                found[kind if kind == chosen else f"{kind} ({chosen})"] = model.predict(features[fresh])
            found[told] = knowing.fitted(place, known[:n], values[:n])[1].predict(known[fresh])
            for label, predicted in found.items():
                said = score(predicted, values[fresh])
                print(
                    f"| {name} | {label} | {n} | {said.mape:.2f} | {said.spearman:.3f} | {said.kendall:.3f} |"
                )


def warm(table: Table, options: argparse.Namespace) -> None:
    """From the run's own target to another one, with and without what was found out first."""
    line = table.line
    target = measure.Target(options.runtime, options.threads, options.batch)
    with Table(line, target, (options.val_limit, options.recalibration_images)) as other:
        cold, warmed, here = [], [], []
        for seed in options.seeds:
            first = searched(table, "concurrent", options.cold, seed)
            prior = search.Prior.of(first, ["quality", "latency_ms", "macs"])
            cold.append(searched(other, "concurrent", options.cold, seed))
            warmed.append(searched(other, "concurrent", max(8, options.cold // 4), seed, prior=prior))
            here += search.pareto(first, OBJECTIVES)
        moved = [other.evaluate(t.subnet) for t in here]
        scale = frame([*moved, *(t for runs in (*cold, *warmed) for t in runs)])
        _table(
            {
                f"cold, {options.cold} measured": [curve(t, scale)[-1] for t in cold],
                f"cold, {options.cold // 4} measured": [curve(t, scale)[options.cold // 4 - 1] for t in cold],
                f"warm, {options.cold // 4} measured": [curve(t, scale)[-1] for t in warmed],
                "the first target's front, measured here": [curve(moved, scale)[-1]],
            }
        )


def popdb(table: Table, options: argparse.Namespace) -> None:
    """Search in the whole space, and in what the good candidates of other seeds leave of it."""
    line = table.line
    earlier = [t for s in range(100, 102) for t in searched(table, "concurrent", options.cold, s)]
    good = search.better_half(earlier, OBJECTIVES)
    reduced = search.ReducedSpace(line.space, search.populated(line.space, good, options.threshold))
    print(f"10^{line.space.size_log10:.1f} -> 10^{reduced.size_log10:.1f} sub-networks\n")
    runs = {
        name: [searched(table, options.algorithm, options.cold, s, space=space) for s in options.seeds]
        for name, space in (("whole", line.space), ("reduced", reduced))
    }
    scale = frame([t for trials in runs.values() for one in trials for t in one])
    marks = [options.cold // 4, options.cold // 2, options.cold]
    _table(
        {
            f"{name}, {m} measured": [curve(t, scale)[m - 1] for t in trials]
            for m in marks
            for name, trials in runs.items()
        }
    )


def overhead(table: Table, options: argparse.Namespace) -> None:
    """What a trial does besides forward passes and timed runs; nothing is looked up."""
    images = (options.val_limit, options.recalibration_images)
    with Table(table.line, table.line.config.target, images, fresh=True) as fresh:
        fresh.hints()  # times layers, where that has not been done
        began = time.perf_counter()
        searched(fresh, options.algorithm, options.held, 0)
        spent = dict(fresh.seconds)
        whole = time.perf_counter() - began - spent["load"]
        spent["measure"] -= spent["load"]
        spent["think"] -= spent["glance"]
        spent["everything else"] = whole - sum(spent.values())
        outside = sum(spent[name] for name in ("cut", "load", "think", "everything else"))
        print("| of a candidate | ms |\n| --- | --- |")
        for name, seconds in spent.items():
            print(f"| {name} | {1000 * seconds / fresh.measured:.0f} |")
        print(
            f"\n{fresh.measured} candidates by {options.algorithm}, {fresh.glanced / fresh.measured:.1f} glances each; "
        )
        print(f"outside of passes and timed runs: {100 * outside / whole:.1f} %")


def _random(table: Table, count: int) -> list[Trial]:
    """The same sub-networks every time."""
    rng = np.random.default_rng(12345)
    problem = search.Problem(table.line.space, OBJECTIVES)
    keys: dict[str, Subnet] = {}
    while len(keys) < count:
        genotype = problem.repair(spread_sample(problem, rng))
        keys.setdefault(problem.key(genotype), problem.subnet(genotype))
    return [table.evaluate(subnet) for subnet in keys.values()]


def _even(runs: Sequence[list[Trial]]) -> list[list[Trial]]:
    shortest = min(len(trials) for trials in runs)
    return [trials[:shortest] for trials in runs]


def _table(rows: Mapping[str, Sequence[float]]) -> None:
    print("| | hypervolume |\n| --- | --- |")
    for name, values in rows.items():
        print(f"| {name} | {np.mean(values):.4f} ({', '.join(f'{v:.4f}' for v in values)}) |")


def _draw(curves: Mapping[str, Rows], path: Path | None) -> None:
    """Mean and standard deviation over seeds."""
    if path is None:
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5))
    for name, rows in curves.items():
        x, mean, spread = np.arange(1, rows.shape[1] + 1), rows.mean(axis=0), rows.std(axis=0)
        axes.plot(x, mean, label=name)
        axes.fill_between(x, mean - spread, mean + spread, alpha=0.2)
    axes.set(xscale="log", xlabel="measured candidates", ylabel="hypervolume")
    axes.set_xlim(10)
    axes.set_ylim(bottom=min(float(rows.mean(axis=0)[9]) for rows in curves.values()) - 0.02)
    axes.legend()
    figure.savefig(path, dpi=120)


COMMANDS: Mapping[str, Callable[[Table, argparse.Namespace], Any]] = {
    "fronts": fronts, "predictors": predictors, "warm": warm, "popdb": popdb, "overhead": overhead
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("run", type=Path)
    parser.add_argument("--trials", type=int, default=1000, help="fronts: of NSGA-II")
    parser.add_argument("--others", type=int, default=250, help="fronts: trials of all but NSGA-II, at most")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--algorithms", nargs="+", choices=LENGTHS, default=list(LENGTHS))
    parser.add_argument("--algorithm", default="concurrent", help="popdb, overhead: of the searches")
    parser.add_argument("--val-limit", type=int, default=1000, help="validation samples for each sub-network")
    parser.add_argument("--recalibration-images", type=int, default=256, help="for its statistics")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument(
        "--held", type=int, default=100, help="predictors, overhead: sub-networks not fitted to"
    )
    parser.add_argument("--cold", type=int, default=96, help="warm, popdb: candidates of a cold search")
    parser.add_argument(
        "--threshold",
        type=float,
        default=SearchConfig.model_validate({}).reduce_threshold,
        help="popdb: as reduce_threshold",
    )
    parser.add_argument("--runtime", default="onnxruntime", help="warm: the other target's")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--no-hints", action="store_true", help="fronts: predict latency without layers")
    parser.add_argument("--no-glances", action="store_true", help="fronts: predict quality without glances")
    parser.add_argument("--again", action="store_true", help="fronts: measure their members a second time")
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--macs", action="store_true", help="a third objective")
    options = parser.parse_args()
    if options.macs:
        OBJECTIVES.append(Objective("macs", "MACs", maximise=False))
    line = Line.at(options.run)
    with Table(line, line.config.target, (options.val_limit, options.recalibration_images)) as table:
        COMMANDS[options.command](table, options)


if __name__ == "__main__":
    main()
