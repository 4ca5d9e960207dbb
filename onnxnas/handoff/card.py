"""The model card of a bundle: what was changed, what was measured, where, and how to run it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from onnxnas.handoff.changes import Changes, changes, numbers
from onnxnas.types import Subnet


@dataclass(frozen=True)
class CardInfo:
    """What a card says beyond the metrics.

    `space` is `SearchSpace.to_json()`; `environment` is `measure.environment()`; `metric` and `unit` name the
    quality ('top1', '%'). `notes` are sentences that a user of the model has to know.
    """

    title: str
    source: str
    source_sha256: str
    subnet: Subnet
    space: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    metric: str = "quality"
    unit: str = ""
    command: str = ""
    notes: Sequence[str] = ()


def render(card: CardInfo, metrics: Mapping[str, Any], runtime: Mapping[str, Any]) -> str:
    """The card as Markdown. Names from files are set as code or escaped."""
    what = changes(card.space, card.subnet)
    parts = [
        f"# {_text(card.title)}",
        _summary(card, what),
        "## Measured\n\n" + _measured(card, metrics, runtime),
        "## What was changed\n\n" + _changed(what, card.subnet),
        "## Run it\n\n" + _how(runtime),
        "## Where it was measured\n\n" + _table(("what", "value"), flat(card.environment)),
    ]
    if card.notes:
        parts.append("## Notes\n\n" + "\n".join(f"- {_text(note)}" for note in card.notes))
    return "\n\n".join(parts) + "\n"


def _summary(card: CardInfo, what: Changes) -> str:
    lines = [
        f"A sub-network of {_code(card.source)}: {len(what.skipped)} of {len(what.blocks)} blocks skipped, "
        f"{len(what.narrowed)} of {len(what.widths)} width groups narrowed, "
        f"{len(what.cropped)} of {len(what.kernels)} kernels cropped.",
        f"\nSource SHA-256: {_code(card.source_sha256)}",
    ]
    if card.command:
        lines.append(f"\nMade by: {_code(card.command)}")
    return "\n".join(lines)


def _measured(card: CardInfo, metrics: Mapping[str, Any], runtime: Mapping[str, Any]) -> str:
    base = metrics.get("baseline") or {}
    unit = f" {card.unit}" if card.unit else ""
    rows = [
        (f"{card.metric}{unit}", _number(base.get("quality"), 2), _number(metrics.get("quality"), 2)),
        ("latency p50 ms (95 % interval)", _latency(base), _latency(metrics)),
        ("speed-up (95 % interval)", "1", _speedup(metrics.get("speedup"))),
        *(
            (label, _number(base.get(key), 0), _number(metrics.get(key), 0))
            for key, label in (("macs", "MACs"), ("params", "parameters"), ("bytes", "bytes on disk"))
        ),
    ]
    rows = [row for row in rows if row[2] != "-"]
    told = ", ".join(
        f"{key} {runtime[key]}"
        for key in ("runtime", "version", "threads", "batch")
        if runtime.get(key) is not None
    )
    text = _table(("", "original", "this model"), rows) + f"\n\nRuntime: {_text(told)}."
    speed = metrics.get("speedup") or {}
    if isinstance(speed.get("lo"), int | float) and speed["lo"] <= 1.0:
        text += "\n\nThe interval of the speed-up includes 1: this model is **not measurably faster**."
    return text


def _changed(what: Changes, subnet: Subnet) -> str:
    parts = []
    if what.skipped:
        rows = [(block.id, block.name, block.kind, str(block.chain)) for block in what.skipped]
        parts.append("Blocks skipped:\n\n" + _table(("block", "nodes", "kind", "chain"), rows))
    if what.narrowed:
        wide = [
            (group.id, group.name, f"{group.size}", f"{group.kept}", f"{group.fraction:.0%}")
            for group in what.narrowed
        ]
        parts.append("Widths:\n\n" + _table(("group", "made by", "original", "kept", "share"), wide))
    if what.cropped:
        rows = [(k.id, k.name, _size(k.size), _size(k.kept)) for k in what.cropped]
        parts.append("Kernels:\n\n" + _table(("kernel", "node", "original", "kept"), rows))
    if subnet.precision:
        parts.append(f"Numbers: {_text(numbers(subnet))}, of the layers that can have it.")
    parts = parts or ["Nothing: the structure is the original one."]
    parts.append("As a sub-network file:\n\n```json\n" + json.dumps(subnet.to_json()) + "\n```")
    return "\n\n".join(parts)


def _how(runtime: Mapping[str, Any]) -> str:
    name = str(runtime.get("runtime", "onnxruntime"))
    return (
        f"```\npip install {name} numpy\npython run.py                                 # stored samples\n"
        "python run.py --input in.npz --output out.npz # arrays by input name\n"
        "python run.py --benchmark                     # latency on this machine\n"
        "onnxnas verify .                              # hashes and numbers\n```"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(_text(str(cell)) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def flat(body: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Rows (path of keys joined by dots, text) of a nested mapping; what is unknown (None) is left out."""
    rows: list[tuple[str, str]] = []
    for key, value in body.items():
        if value is None or key == "schema":
            continue
        if isinstance(value, Mapping):
            rows += flat(value, f"{prefix}{key}.")
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            rows.append((prefix + str(key), shown if len(shown) <= 200 else shown[:197] + "..."))
    return rows


def _latency(body: Mapping[str, Any]) -> str:
    return _interval((body.get("latency_ms") or {}), "p50")


def _speedup(body: Mapping[str, Any] | None) -> str:
    return _interval(body or {}, "value")


def _interval(body: Mapping[str, Any], key: str) -> str:
    if body.get(key) is None:
        return "-"
    text = f"{body[key]:.3f}"
    return f"{text} ({body['lo']:.3f} to {body['hi']:.3f})" if {"lo", "hi"} <= body.keys() else text


def _number(value: Any, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _size(size: Sequence[int]) -> str:
    return "x".join(map(str, size))


def _code(text: str) -> str:
    return "`" + text.replace("`", "'").replace("\n", " ") + "`"


def _text(text: str) -> str:
    """Plain text inside Markdown: no table cell, link, emphasis or HTML of its own."""
    text = text.replace("\n", " ").replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for sign in "\\`*_[]|":
        text = text.replace(sign, "\\" + sign)
    return text
