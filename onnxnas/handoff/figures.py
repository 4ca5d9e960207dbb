"""The figures of a report, each a plotly figure of the values of `rundir`, or None where there is nothing to draw.

All text from files goes through `html.escape` first: plotly reads a little HTML in labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from onnxnas.handoff.changes import Changes, changes
from onnxnas.handoff.front import LARGER_IS_BETTER, front, hypervolumes
from onnxnas.handoff.rundir import Member, RunFiles, TrialRow, objectives

INK, SOFT, GRID = "#1f2933", "#7b8794", "#e4e7eb"
BLUE, PALE, ORANGE, RED = "#2563eb", "#9db7ea", "#ea7317", "#c2410c"
KEPT = [[0.0, "#f3d9c4"], [0.5, "#8fb0e8"], [1.0, "#1d3f8f"]]

AXIS = {
    "quality": "quality",
    "latency_ms": "latency p50 (ms)",
    "macs": "MACs",
    "params": "parameters",
    "bytes": "bytes",
    "throughput": "throughput (samples/s)",
}


def all_figures(run: RunFiles, unit: str = "") -> list[tuple[str, str, go.Figure]]:
    """(title, what it shows, figure) of every figure that this run has the values for, in reading order."""
    data = "validation" if run.result.get("quality_split") == "val" else "test"
    wanted: list[tuple[str, str, Callable[[], go.Figure | None]]] = [
        (
            "Quality and latency",
            "Every trial of the search, the front among them, and the finalists as measured again at the end. "
            "The search judges on validation data with the shared weights and short measurements; the finalists "
            f"are judged on {data} data after fine-tuning, with long ones. Bars are 95 % intervals. The lowest fifth "
            "of the trials may lie below the picture: a double click shows all.",
            lambda: trade_off(run, "latency_ms", unit),
        ),
        ("Quality and MACs", "The same against multiply-accumulates.", lambda: trade_off(run, "macs", unit)),
        (
            "Progress of the search",
            "Hypervolume of the front so far, as the share of the box between the worst and the best value seen "
            "in each of two objectives; below, every trial in its order.",
            lambda: progress(run, unit),
        ),
        (
            "What was kept of each layer",
            "Blocks, width groups and kernels, each from the model's input (top) to its output; one column for each "
            "finalist. Orange: gone with a skipped block.",
            lambda: kept(run),
        ),
        (
            "Training of the super-network",
            "Loss and learning rate by step; quality of the largest, the smallest and random sub-networks.",
            lambda: training(run, unit),
        ),
    ]
    made = [(title, text, make()) for title, text, make in wanted]
    return [(title, text, figure) for title, text, figure in made if figure is not None]


def trade_off(run: RunFiles, cost: str, unit: str = "") -> go.Figure | None:
    """Quality against `cost`: trials, their front, finalists with intervals, the original."""
    trials = [t for t in run.trials if t.status == "ok" and {"quality", cost} <= t.values.keys()]
    members = [m for m in run.members if math.isfinite(m.quality) and math.isfinite(_cost(m, cost)[0])]
    if not trials and not members:
        return None
    figure = go.Figure()
    if trials:
        points = [(t.values["quality"], t.values[cost]) for t in trials]
        best = [trials[i] for i in front(points, (True, False))]
        best.sort(key=lambda t: t.values[cost])
        figure.add_scatter(
            x=[p[1] for p in points],
            y=[p[0] for p in points],
            mode="markers",
            name="trials",
            marker={"size": 6, "color": PALE},
            text=[_hover(t) for t in trials],
            hovertemplate="%{text}<extra></extra>",
        )
        figure.add_scatter(
            x=[t.values[cost] for t in best],
            y=[t.values["quality"] for t in best],
            mode="lines+markers",
            name="front of the search",
            line={"color": BLUE, "shape": "hv", "width": 1.5},
            marker={"size": 6, "color": BLUE},
            text=[_hover(t) for t in best],
            hovertemplate="%{text}<extra></extra>",
        )
    if members:
        figure.add_scatter(
            x=[_cost(m, cost)[0] for m in members],
            y=[m.quality for m in members],
            mode="markers+text",
            name="finalists",
            marker={"size": 12, "symbol": "diamond", "color": ORANGE, "line": {"color": "white", "width": 1}},
            error_x=_bars([_cost(m, cost) for m in members]),
            text=[str(i) for i in range(1, len(members) + 1)],
            textposition="top center",
            hovertemplate=[f"{escape(short_name(m))}<br>%{{x}}, %{{y}}<extra></extra>" for m in members],
        )
    base = run.baseline
    if base is not None and math.isfinite(base.quality) and math.isfinite(_cost(base, cost)[0]):
        figure.add_scatter(
            x=[_cost(base, cost)[0]],
            y=[base.quality],
            mode="markers",
            name="original",
            marker={"size": 15, "symbol": "star", "color": INK},
            error_x=_bars([_cost(base, cost)]),
            hovertemplate="original<br>%{x}, %{y}<extra></extra>",
        )
    figure.update_xaxes(title=AXIS.get(cost, escape(cost)))
    figure.update_yaxes(title=_quality(unit))
    shown = [*(m.quality for m in members), *([base.quality] if base is not None else [])]
    figure.update_yaxes(range=_range([t.values["quality"] for t in trials], shown))
    return _styled(figure, 460)


def progress(run: RunFiles, unit: str = "") -> go.Figure | None:
    """Hypervolume after each trial, and the trials in their order."""
    ok = [trial for trial in run.trials if trial.status == "ok"]
    names = objectives(ok)
    pair: list[str] = [name for name in ("quality", "latency_ms") if name in names]
    pair += [name for name in names if name not in pair]
    pair = pair[:2]
    ok = [trial for trial in ok if set(pair) <= trial.values.keys()]
    if len(pair) < 2 or len(ok) < 2:
        return None
    first, second = pair
    larger = (first in LARGER_IS_BETTER, second in LARGER_IS_BETTER)
    volume = hypervolumes([(t.values[first], t.values[second]) for t in ok], larger)
    at = [trial.number for trial in ok]
    figure = make_subplots(rows=2, shared_xaxes=True, vertical_spacing=0.09, row_heights=[0.42, 0.58])
    figure.add_scatter(
        x=at,
        y=volume,
        line={"color": BLUE, "shape": "hv"},
        name="hypervolume",
        showlegend=False,
        row=1,
        col=1,
    )
    figure.add_scatter(
        x=at,
        y=[t.values[first] for t in ok],
        mode="markers",
        showlegend=False,
        marker={
            "size": 7,
            "color": [t.values[second] for t in ok],
            "colorscale": [[0.0, "#1d3f8f"], [1.0, "#c8d6f2"]],
            "colorbar": {"title": AXIS.get(second, escape(second)), "len": 0.55, "y": 0.27, "thickness": 12},
        },
        text=[_hover(t) for t in ok],
        hovertemplate="%{text}<extra></extra>",
        row=2,
        col=1,
    )
    figure.update_yaxes(range=_range([t.values[first] for t in ok], []), row=2, col=1)
    figure.update_yaxes(title="hypervolume (%)", row=1, col=1)
    figure.update_yaxes(title=_quality(unit) if first == "quality" else escape(first), row=2, col=1)
    figure.update_xaxes(title="trial", row=2, col=1)
    return _styled(figure, 520)


def kept(run: RunFiles) -> go.Figure | None:
    """Heat map: share of each width group, block and kernel that each finalist kept."""
    if not run.space or not run.members:
        return None
    columns = [changes(run.space, member.subnet) for member in run.members]
    rows = _rows(columns)
    if not rows:
        return None
    across = list(range(len(columns)))
    names = [label for label, _ in rows]
    figure = go.Figure()
    figure.add_heatmap(
        z=[[max(share, 0.0) if share >= 0 else None for _, share in cells] for _, cells in rows],
        x=across,
        y=list(range(len(rows))),
        zmin=0,
        zmax=1,
        colorscale=KEPT,
        xgap=3,
        ygap=1,
        hoverinfo="skip",
        colorbar={
            "title": "kept",
            "tickformat": ".0%",
            "thickness": 12,
            "len": min(1.0, 260 / (18 * len(rows) + 120)),
        },
    )
    figure.add_heatmap(
        z=[[1 if share < 0 else None for _, share in cells] for _, cells in rows],
        x=across,
        y=list(range(len(rows))),
        colorscale=[[0, ORANGE], [1, ORANGE]],
        showscale=False,
        xgap=3,
        ygap=1,
        hoverinfo="skip",
    )
    small = len(rows) <= 80
    for y, (_, cells) in enumerate(rows if small else []):
        for x, (text, share) in enumerate(cells):
            colour = "white" if share < 0 or share > 0.6 else INK
            figure.add_annotation(x=x, y=y, text=text, showarrow=False, font={"size": 10, "color": colour})
    figure.update_yaxes(
        autorange="reversed",
        tickmode="array",
        tickvals=list(range(len(rows))),
        ticktext=[escape(name if len(name) < 44 else name[:42] + "…") for name in names],
        tickfont={"size": 10},
        showgrid=False,
        automargin=True,
    )
    figure.update_xaxes(
        title="finalist", side="top", tickmode="array", tickvals=across, ticktext=[str(x + 1) for x in across]
    )
    figure.update_xaxes(showgrid=False)
    return _styled(figure, 120 + 18 * len(rows))


def training(run: RunFiles, unit: str = "") -> go.Figure | None:
    """Loss, learning rate and quality of sub-networks over the training of the super-network."""
    steps, evaluations = run.training.steps, run.training.evaluations
    if not steps and not evaluations:
        return None
    titles = ("loss", "learning rate", _quality(unit))
    figure = make_subplots(cols=3, subplot_titles=titles, horizontal_spacing=0.07)
    steps = _thinned(steps, 2000)
    at = [row.get("step", i) for i, row in enumerate(steps)]
    for column, name in ((1, "loss"), (2, "lr")):
        figure.add_scatter(
            x=at,
            y=[row.get(name, math.nan) for row in steps],
            line={"color": PALE if column == 1 else BLUE, "width": 1},
            showlegend=False,
            name=name,
            row=1,
            col=column,
        )
        figure.update_xaxes(title="step", row=1, col=column)
    if steps:
        smooth = _smoothed([row.get("loss", math.nan) for row in steps])
        figure.add_scatter(
            x=at, y=smooth, line={"color": BLUE}, showlegend=False, name="smoothed", row=1, col=1
        )
    colours = {"max": INK, "min": ORANGE}
    for name in dict.fromkeys(name for _, values in evaluations for name in values):
        figure.add_scatter(
            x=[epoch for epoch, values in evaluations if name in values],
            y=[values[name] for _, values in evaluations if name in values],
            mode="lines+markers",
            name=escape(name.replace("_", " ")),
            line={"color": colours.get(name, BLUE), "dash": "solid" if name in colours else "dot"},
            marker={"size": 5},
            row=1,
            col=3,
        )
    figure.update_xaxes(title="epoch", row=1, col=3)
    styled = _styled(figure, 340)
    styled.update_layout(
        legend={"orientation": "v", "x": 1, "xanchor": "right", "y": 0.02, "yanchor": "bottom"}
    )
    return styled


def short_name(member: Member) -> str:
    """'rank_01' of 'pareto/rank_01'."""
    return member.bundle.rstrip("/").rsplit("/", 1)[-1] or "finalist"


def _rows(columns: Sequence[Changes]) -> list[tuple[str, list[tuple[str, float]]]]:
    """(label, (text, share) per column); a share of -1 means gone."""
    rows: list[tuple[str, list[tuple[str, float]]]] = []
    first = columns[0]
    for i, block in enumerate(first.blocks):
        cells = [("skipped", -1.0) if c.blocks[i].skipped else ("", 1.0) for c in columns]
        rows.append((f"block {block.name}", cells))
    for i, group in enumerate(first.widths):
        all_of = [c.widths[i] for c in columns]
        cells = [("", -1.0) if w.gone else (f"{w.kept}/{w.size}", w.fraction) for w in all_of]
        rows.append((f"width {group.name or group.id}", cells))
    for i, kernel in enumerate(first.kernels):
        each = [c.kernels[i] for c in columns]
        cells = [
            ("", -1.0)
            if k.gone
            else ("x".join(map(str, k.kept)), math.prod(k.kept) / max(math.prod(k.size), 1))
            for k in each
        ]
        rows.append((f"kernel {kernel.name}", cells))
    return rows


def _cost(member: Member, cost: str) -> tuple[float, float, float]:
    if cost == "latency_ms":
        return member.latency
    value = float(getattr(member, cost, math.nan))
    return value, value, value


def _bars(values: Sequence[tuple[float, float, float]]) -> dict[str, Any]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [_gap(high, value) for value, _, high in values],
        "arrayminus": [_gap(value, low) for value, low, _ in values],
        "thickness": 1.2,
        "width": 4,
        "color": SOFT,
    }


def _gap(upper: float, lower: float) -> float:
    return max(upper - lower, 0.0) if math.isfinite(upper - lower) else 0.0


def _hover(trial: TrialRow) -> str:
    shown: Mapping[str, float] = {k: v for k, v in trial.values.items() if not k.endswith(("_lo", "_hi"))}
    lines = [f"trial {trial.number}", *(f"{escape(k)} {v:,.6g}" for k, v in shown.items())]
    if trial.subnet.skip:
        lines.append(f"{len(trial.subnet.skip)} blocks skipped")
    return "<br>".join(lines)


def _quality(unit: str) -> str:
    return f"quality ({escape(unit)})" if unit else "quality"


def _range(trials: Sequence[float], others: Sequence[float]) -> list[float] | None:
    """Where an axis begins and ends so that a few hopeless trials do not press the others together."""
    if len(trials) < 20:
        return None
    low = min([sorted(trials)[len(trials) // 5], *(v for v in others if math.isfinite(v))])
    high = max([*trials, *(v for v in others if math.isfinite(v))])
    margin = 0.06 * (high - low) or 1.0
    return [low - margin, high + margin]


def _thinned(rows: Sequence[Any], most: int) -> Sequence[Any]:
    return rows if len(rows) <= most else rows[:: math.ceil(len(rows) / most)]


def _smoothed(values: Sequence[float]) -> list[float]:
    weight = 1 / max(len(values) / 40, 1)
    state, smooth = math.nan, []
    for value in values:
        if math.isfinite(value):
            state = value if math.isnan(state) else state + weight * (value - state)
        smooth.append(state)
    return smooth


def _styled(figure: go.Figure, height: int) -> go.Figure:
    figure.update_layout(
        height=height,
        margin={"l": 60, "r": 20, "t": 56, "b": 50},
        paper_bgcolor="white",
        plot_bgcolor="white",
        font={"family": "system-ui, -apple-system, 'Segoe UI', sans-serif", "size": 12, "color": INK},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        hoverlabel={"bgcolor": "white"},
    )
    figure.update_xaxes(gridcolor=GRID, zeroline=False, linecolor=SOFT, ticks="outside", tickcolor=GRID)
    figure.update_yaxes(gridcolor=GRID, zeroline=False, linecolor=SOFT)
    return figure
