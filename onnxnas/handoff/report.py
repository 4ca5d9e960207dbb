"""One offline HTML file that tells a run, made from the files of its directory alone.

The drawing library is inlined once and a content policy forbids the page any network. Whatever comes from a
file is escaped. A run that stopped half way gives a shorter report.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import plotly.offline

from onnxnas.handoff.card import flat
from onnxnas.handoff.changes import Changes, changes, numbers
from onnxnas.handoff.figures import all_figures, short_name
from onnxnas.handoff.rundir import Member, RunFiles, number, read
from onnxnas.types import Subnet

POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"

CSS = """
:root { color: #1f2933; background: #f5f7fa; font: 15px/1.5 system-ui, -apple-system, 'Segoe UI', sans-serif; }
body { max-width: 1160px; margin: 0 auto; padding: 24px 16px 64px; }
h1 { font-size: 24px; margin: 8px 0; overflow-wrap: anywhere; } h2 { font-size: 18px; margin: 0 0 8px; }
section { background: white; border: 1px solid #e4e7eb; border-radius: 8px; padding: 20px; margin: 16px 0; }
p { margin: 4px 0 12px; max-width: 75ch; } .soft { color: #616e7c; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 8px; border-bottom: 1px solid #e4e7eb; text-align: right; white-space: nowrap; }
th { color: #616e7c; font-weight: 600; } th:first-child, td:first-child { text-align: left; }
table.words td { text-align: left; white-space: normal; overflow-wrap: anywhere; vertical-align: top; }
table.words td:first-child { width: 34%; color: #616e7c; } tr.best td { background: #eef4ff; font-weight: 600; }
code, pre { font: 13px ui-monospace, monospace; } pre { background: #f5f7fa; padding: 12px; overflow-x: auto; }
.small { font-size: 12px; color: #616e7c; } ul { margin: 4px 0; padding-left: 20px; } summary { cursor: pointer; }
.lead { font-size: 17px; max-width: none; } .warn { border-left: 4px solid #ea7317; }
"""


def write(run_dir: str | Path) -> Path:
    """Write RUN/report.html, whole or not at all, and return it. Raises RunError if no run is there."""
    run = read(run_dir)
    target = run.directory / "report.html"
    handle, temporary = tempfile.mkstemp(prefix=".report.", suffix=".html", dir=run.directory)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(render(run))
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return target


def render(run: RunFiles) -> str:
    """The page as HTML text."""
    metric = run.result.get("metric")
    unit = str(metric.get("unit") or "") if isinstance(metric, Mapping) else ""
    figures = all_figures(run, unit)
    sections = [_summary(run, unit), _notes(run)]
    for place, (title, text, figure) in enumerate(figures):
        drawing = figure.to_html(
            full_html=False,
            include_plotlyjs=False,
            div_id=f"figure-{place}",
            config={
                "displaylogo": False,
                "responsive": True,
                "modeBarButtonsToRemove": ["select2d", "lasso2d"],
            },
        )
        sections.append(_section(title, f'<p class="soft">{escape(text)}</p>{drawing}'))
    sections += [_space(run), _trials(run), _predictors(run), _setting(run)]
    name = Path(str(run.config.get("model") or run.directory.resolve().name)).name
    script = f"<script>{plotly.offline.get_plotlyjs()}</script>" if figures else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(name)}: search report</title><style>{CSS}</style>{script}</head>\n<body>"
        f'<p class="small">onnxnas report</p><h1>{escape(name)}</h1>{_facts(run)}\n'
        + "\n".join(section for section in sections if section)
        + "\n</body></html>\n"
    )


def _facts(run: RunFiles) -> str:
    seconds = run.result.get("seconds")
    spent = (
        sum(v for v in seconds.values() if isinstance(v, int | float)) if isinstance(seconds, Mapping) else 0
    )
    known = [
        ("data", run.config.get("data")),
        ("preset", run.config.get("preset")),
        ("runtime", run.config.get("runtime")),
        ("threads", run.config.get("threads")),
        ("seed", run.config.get("seed")),
        ("trials", len(run.trials) or None),
        ("time", _time(spent) if spent else None),
    ]
    return (
        '<p class="soft">'
        + " · ".join(f"{k} {escape(str(v))}" for k, v in known if v not in (None, ""))
        + "</p>"
    )


def _summary(run: RunFiles, unit: str) -> str:
    if run.baseline is None and not run.members:
        return _section("Result", "<p>The run has no final measurements yet.</p>")
    mark = f" ({escape(unit)})" if unit else ""
    head = (
        "",
        f"quality{mark}",
        "latency p50 ms",
        "speed-up",
        "MACs",
        "parameters",
        "bytes",
        "structure kept",
    )
    rows: list[tuple[str, Sequence[str]]] = []
    if run.baseline is not None:
        b = run.baseline
        rows.append(("", ("original", *_figures(b, b), "")))
    for rank, member in enumerate(run.members, 1):
        chosen = bool(run.best) and member.bundle == run.best
        name = f"{rank}. {escape(short_name(member))}" + (" (best)" if chosen else "")
        what = changes(run.space, member.subnet)
        rows.append(
            ("best" if chosen else "", (name, *_figures(member, run.baseline), _kept(what, member.subnet)))
        )
    body = "".join(
        f'<tr class="{style}">' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
        for style, cells in rows
    )
    table = f"<table><tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr>{body}</table>"
    return _section("Result", f'{_lead(run, unit)}<div class="scroll">{table}</div>{_legend(run)}')


def _kept(what: Changes, subnet: Subnet) -> str:
    parts = []
    if what.blocks:
        parts.append(f"{len(what.blocks) - len(what.skipped)}/{len(what.blocks)} blocks")
    left = [group.fraction for group in what.widths if not group.gone]
    if left:
        parts.append(f"width {sum(left) / len(left):.0%}")
    if subnet.precision:
        parts.append(escape(numbers(subnet)))
    return ", ".join(parts)


def _lead(run: RunFiles, unit: str) -> str:
    best = next((m for m in run.members if run.best and m.bundle == run.best), None)
    if best is None or run.baseline is None:
        return ""
    drop, ratio = (
        best.quality - run.baseline.quality,
        run.baseline.macs / best.macs if best.macs else math.nan,
    )
    value, low, high = best.speedup
    speed = f"{value:.2f}x as fast ({low:.2f} to {high:.2f})"
    if not low > 1.0:
        speed = f"not measurably faster ({low:.2f} to {high:.2f})"
    text = f"Best: quality {best.quality:.2f} {unit} ({drop:+.2f}), {ratio:.2f}x fewer MACs, {speed}."
    return f'<p class="lead">{escape(text)}</p>'


def _figures(member: Member, base: Member | None) -> tuple[str, ...]:
    delta, ratio = "", ""
    if base is not None and member is not base:
        gap = member.quality - base.quality
        delta = f' <span class="small">{gap:+.2f}</span>' if math.isfinite(gap) else ""
        fewer = base.macs / member.macs if member.macs else math.nan
        ratio = f' <span class="small">÷{fewer:.2f}</span>' if math.isfinite(fewer) else ""
    speed = _interval(member.speedup, 2) if base is not member else "1"
    if base is not member and member.speedup[1] <= 1.0:
        speed += ' <span class="small">not faster</span>'
    return (
        _number(member.quality, 2) + delta,
        _interval(member.latency, 3),
        speed,
        _number(member.macs, 0) + ratio,
        _number(member.params, 0),
        _number(member.bytes, 0),
    )


def _legend(run: RunFiles) -> str:
    alike = [
        f"{i + 1} and {j + 1}"
        for i, a in enumerate(run.members)
        for j, b in enumerate(run.members)
        if i < j and a.latency[1] <= b.latency[2] and b.latency[1] <= a.latency[2]
    ]
    text = "Intervals are 95 %; ÷ says how many times fewer than the original. "
    text += "A speed-up whose interval includes 1 is not called faster."
    if alike:
        text += f" The latency intervals of {', '.join(alike[:10])} overlap: do not call these different."
    return f'<p class="small">{escape(text)}</p>'


def _notes(run: RunFiles) -> str:
    notes: list[str] = []
    for key in ("notes", "problems"):
        found = run.result.get(key)
        notes += [str(one) for one in found if one] if isinstance(found, list) else []
    notes += list(run.problems)
    if run.trials and not run.members:
        notes.append("The search has trials but nothing was finalised yet.")
    top = run.result.get("supernet_max_quality")
    if isinstance(top, int | float) and run.baseline is not None and math.isfinite(run.baseline.quality):
        notes.append(
            f"The largest sub-network of the trained super-network has quality {top:.2f}; "
            f"the original has {run.baseline.quality:.2f}."
        )
    return _section("Notes", _list(notes), "warn") if notes else ""


def _space(run: RunFiles) -> str:
    if not run.space:
        return ""
    counts = [(name, len(run.space.get(name) or ())) for name in ("blocks", "groups", "kernels")]
    told = f"{counts[0][1]} blocks that can be skipped, {counts[1][1]} width groups, {counts[2][1]} elastic kernels."
    frozen = [one for one in run.space.get("frozen") or () if isinstance(one, Mapping)]
    if not frozen:
        return _section("Search space", f"<p>{told}</p>")
    rows = [[str(one.get(key, "")) for key in ("node", "what", "reason")] for one in frozen[:300]]
    more = f"<p class=small>{len(frozen) - 300} more in space.json</p>" if len(frozen) > 300 else ""
    inside = _words(("node", "what", "why"), rows) + more
    return _section(
        "Search space",
        f"<p>{told}</p><details><summary>parts that cannot change, and why: {len(frozen)}</summary>{inside}</details>",
    )


def _trials(run: RunFiles) -> str:
    bad = [trial for trial in run.trials if trial.status != "ok"]
    if not run.trials:
        return ""
    counts = ", ".join(f"{n} {escape(s)}" for s, n in Counter(t.status for t in run.trials).most_common())
    rows = [[str(trial.number), trial.status, trial.error] for trial in bad[:50]]
    table = _words(("trial", "status", "error"), rows) if rows else ""
    more = f"<p class=small>{len(bad) - 50} more in trials.csv</p>" if len(bad) > 50 else ""
    detail = f"<details><summary>trials without a result</summary>{table}{more}</details>" if rows else ""
    return _section("Trials", f"<p>{counts}</p>{detail}")


def _predictors(run: RunFiles) -> str:
    """How well each round of predictors said what its candidates turned out to be."""
    rows = []
    for one in run.predictors:
        found = one.get("objectives")
        for name, told in found.items() if isinstance(found, Mapping) else ():
            told = told if isinstance(told, Mapping) else {}
            scores = (_number(number(told.get(key)), 3) for key in ("mape", "spearman", "kendall"))
            rows.append([str(one.get("fitted_to", "")), str(name), str(told.get("predictor", "")), *scores])
    if not rows:
        return ""
    head = ("fitted to", "objective", "predictor", "mean error %", "Spearman", "Kendall")
    text = "<p>Each round's predictions against what its candidates, not seen before, turned out to be.</p>"
    return _section("Predictors", f'{text}<div class="scroll">{_words(head, rows)}</div>')


def _setting(run: RunFiles) -> str:
    parts = []
    command = run.result.get("command") or run.config.get("command")
    if command:
        parts.append(f"<pre>{escape(str(command))}</pre>")
    if run.environment:
        parts.append("<h2>Machine and versions</h2>" + _words(("what", "value"), flat(run.environment)))
    if run.config:
        inside = _words(("key", "value"), flat(run.config))
        parts.append(f"<details><summary>resolved configuration</summary>{inside}</details>")
    return _section("How it was made", "".join(parts)) if parts else ""


def _section(title: str, body: str, style: str = "") -> str:
    return f'<section class="{style}"><h2>{escape(title)}</h2>{body}</section>'


def _words(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    top = "".join(f'<th style="text-align:left">{escape(cell)}</th>' for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<table class="words"><tr>{top}</tr>{body}</table>'


def _list(items: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"


def _number(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}" if math.isfinite(value) else "–"


def _interval(values: tuple[float, float, float], digits: int) -> str:
    value, low, high = values
    if not math.isfinite(value):
        return "–"
    text = f"{value:.{digits}f}"
    if math.isfinite(low) and math.isfinite(high):
        text += f' <span class="small">{low:.{digits}f}–{high:.{digits}f}</span>'
    return text


def _time(seconds: Any) -> str:
    minutes, rest = divmod(round(float(seconds)), 60)
    return f"{minutes} min {rest:02d} s"
